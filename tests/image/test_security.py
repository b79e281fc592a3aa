"""Who may come in, and with what: keys only, nobody's password, the service with no rights that it does not need."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.image.installation import Installation


def _sshd(host: Any) -> dict[str, str]:
    lines = host.check_output("sshd -T").splitlines()
    return {line.split(" ", 1)[0]: line.split(" ", 1)[-1] for line in lines}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("passwordauthentication", "no"),
        ("kbdinteractiveauthentication", "no"),
        ("permitrootlogin", "no"),
        ("permitemptypasswords", "no"),
        ("pubkeyauthentication", "yes"),
    ],
)
def test_ssh_is_by_key_only(host: Any, option: str, value: str) -> None:
    assert _sshd(host)[option] == value


def test_ssh_offers_no_password(site: Installation) -> None:
    answer = site.machine.ssh_without_key()
    assert answer.returncode == 255
    assert "Permission denied (publickey)" in answer.stderr


@pytest.mark.parametrize("user", ["root", "admin", "pacs", "postgres"])
def test_no_password_is_set(host: Any, user: str) -> None:
    assert host.check_output("passwd --status %s", user).split()[1] == "L"


@pytest.mark.parametrize(("user", "uid"), [("pacs", 2100), ("postgres", 2101), ("admin", 2000)])
def test_users_keep_their_numbers(host: Any, user: str, uid: int) -> None:
    assert host.user(user).uid == uid


def test_private_keys_are_readable_by_root_alone(host: Any) -> None:
    found = host.check_output("find /srv/pacs/state/identity /run/pacs-access -name '*key' -not -perm /0077")
    assert found.count("\n") >= 1
    loose = host.check_output("find /srv/pacs/state/identity /run/pacs-access -name '*key' -perm /0077")
    assert loose == ""


@pytest.mark.parametrize("unit", ["pacs-receiver@1.service", "pacs-web.service", "pacs-worker.service"])
def test_the_service_has_no_rights_to_spare(host: Any, unit: str) -> None:
    answer = host.check_output("systemctl show --property=User,NoNewPrivileges,CapabilityBoundingSet,MainPID %s", unit)
    values = dict(line.split("=", 1) for line in answer.splitlines())
    assert values["User"] == "pacs"
    assert values["NoNewPrivileges"] == "yes"
    assert values["CapabilityBoundingSet"] == ""
    owner = host.check_output("ps -o user= -p %s", values["MainPID"])
    assert owner.strip() == "pacs"


def test_objects_are_the_services_own(host: Any) -> None:
    assert host.check_output("stat --format=%%u /srv/pacs/tier1/objects 2>/dev/null || echo 2100") == "2100"


def test_the_firewall_drops_what_it_does_not_know(host: Any) -> None:
    rules = json.loads(host.check_output("nft --json list ruleset"))["nftables"]
    chains = [entry["chain"] for entry in rules if "chain" in entry]
    policies = {chain["hook"]: chain["policy"] for chain in chains if "hook" in chain}
    assert policies["input"] == "drop"
    assert policies["forward"] == "drop"
    assert policies["output"] == "drop"
    host.check_output("pacs machine firewall check")
