"""What every play and every role keeps to. An appliance that is half configured must not be shipped as a whole one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
PLAYBOOKS = sorted((REPOSITORY / "playbooks").glob("*.yml"))
ROLES = sorted(path for path in (REPOSITORY / "roles").iterdir() if path.is_dir())


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


def tasks_of(role: Path) -> list[dict[str, Any]]:
    """Every task and handler of a role, those in blocks too."""
    found: list[dict[str, Any]] = []
    todo = [task for file in (*role.glob("tasks/*.yml"), *role.glob("handlers/*.yml")) for task in load(file)]
    while todo:
        task = todo.pop()
        found.append(task)
        todo += [inner for key in ("block", "rescue", "always") for inner in task.get(key, [])]
    return found


def test_there_are_some() -> None:
    assert {"build.yml", "configure.yml"} <= {path.name for path in PLAYBOOKS}
    assert len(ROLES) >= 12


@pytest.mark.parametrize("playbook", PLAYBOOKS, ids=lambda path: path.name)
def test_every_play_stops_at_the_first_failure_and_speaks_c(playbook: Path) -> None:
    plays = load(playbook)
    assert plays
    for play in plays:
        # One at a time, a failure ends the play by itself; see playbooks/upgrade.yml.
        assert play.get("serial") == 1 or (play["any_errors_fatal"] is True and play["max_fail_percentage"] == 0)
        assert play["environment"]["LC_ALL"] == "C"


def test_sysprep_is_the_last_role_of_the_build() -> None:
    roles = load(REPOSITORY / "playbooks/build.yml")[-1]["roles"]
    assert roles[-1]["role"] == "sysprep"


@pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)
def test_every_variable_of_a_role_is_specified_and_carries_its_name(role: Path) -> None:
    options = load(role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    defaults = load(role / "defaults/main.yml") if (role / "defaults/main.yml").exists() else {}
    assert set(defaults) <= set(options)
    for name, option in options.items():
        assert name.startswith(f"{role.name}_")
        assert option["description"]
        assert name in defaults or option.get("required")
        if "default" in option:
            assert option["default"] == defaults[name], f"{name}: the specification tells another default"


@pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)
def test_roles_use_what_ansible_core_brings(role: Path) -> None:
    """And one action of our own, playbooks/action_plugins/tree.py."""
    for task in tasks_of(role):
        modules = [key for key in task if "." in key]
        assert all(module.startswith("ansible.builtin.") for module in modules), task["name"]


@pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)
def test_nothing_is_restarted_while_an_image_is_built(role: Path) -> None:
    """What would start has no volumes, and sshd has no host keys yet."""
    for handler in load(role / "handlers/main.yml") if (role / "handlers/main.yml").exists() else []:
        assert handler["when"] == "appliance_live | default(false)", handler["name"]
    for task in tasks_of(role):
        unit = task.get("ansible.builtin.systemd_service", {})
        assert "state" not in unit or task.get("when") == "appliance_live | default(false)", task["name"]
