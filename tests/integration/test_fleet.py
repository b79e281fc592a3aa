"""`pacs fleet`: instances behind a real sshd, from one inventory that Ansible reads."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pacs.cli.instance import open_instance
from pacs.errors import NotFound, SettingsError
from pacs.fleet.errands import Outcome
from pacs.fleet.host_keys import UnknownHostKey
from pacs.fleet.inventory import Appliance, appliance_of, appliances
from pacs.fleet.node import Node, NodeFailed, Unreachable
from pacs.fleet.upgrade import Upgrade
from pacs.storage.volume import create_identity, read_identity
from tests.pages import PAGES, steps
from tests.planting import store
from tests.sftp_server import SftpServer
from tests.synthetic import ct_study
from tests.workstation import REPOSITORY, Workstation


@pytest.fixture
def workstation(tmp_path: Path, ssh_server: SftpServer) -> Workstation:
    """With one appliance, north, whose key is known. It has no data yet."""
    (tmp_path / "workstation").mkdir()
    made = Workstation(tmp_path / "workstation", ssh_server)
    made.add("north", tmp_path / "data")
    made.know()
    return made


@pytest.fixture
def with_data(workstation: Workstation, new_instance: Callable[[], Path]) -> Workstation:
    """The same, and north has an instance."""
    new_instance()
    return workstation


def test_status_says_how_all_are_and_who_cannot_be_reached(with_data: Workstation) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:  # nobody answers there in the name of ssh
        port = taken.getsockname()[1]
    with_data.add("south", Path("/nowhere"), ansible_port=port)
    with_data.add("west", Path("/nowhere"))
    done = with_data.fleet("status")
    assert done.returncode == 2, done.stderr
    table = {line.split()[0]: line for line in done.stdout.splitlines()[:4]}
    assert "WARNING" in table["north"] and "no repository is named" in table["north"]
    assert "UNREACHABLE" in table["south"] and "CRITICAL" in table["west"]
    assert f"south (127.0.0.1) cannot be reached: {os.strerror(111)}" in done.stdout
    assert "  WARNING  backup      there is no backup" in done.stdout
    only = with_data.fleet("status", "north", "--json")
    (found,) = json.loads(only.stdout)
    assert only.returncode == 1 and (found["name"], found["severity"]) == ("north", "warning") and found["version"]
    assert {each["name"] for each in found["checks"]} >= {"database", "volumes"}


def test_a_host_that_is_not_known_is_not_told_anything(workstation: Workstation) -> None:
    workstation.known_hosts.unlink()
    done = workstation.fleet("status")
    assert done.returncode == 2 and "UNREACHABLE" in done.stdout and "is not known: ssh-ed25519 SHA256:" in done.stdout
    assert not workstation.known_hosts.exists()
    asked: list[tuple[str, str, str]] = []

    def ask(host: str, kind: str, shown: str) -> bool:
        asked.append((host, kind, shown))
        return len(asked) > 1

    with Node(workstation.appliance("north"), ask) as node, pytest.raises(UnknownHostKey):
        node.pacs("version")
    assert not workstation.known_hosts.exists()
    with Node(workstation.appliance("north"), ask) as node:
        assert node.pacs("version").exit_code == 0
    said = subprocess.run(
        ["ssh-keygen", "-l", "-f", workstation.server.root / "host.pub"], capture_output=True, text=True, check=True
    )
    assert asked[0] == asked[1] == (f"[127.0.0.1]:{workstation.server.port}", "ssh-ed25519", said.stdout.split()[1])
    assert stat.S_IMODE(workstation.known_hosts.stat().st_mode) == 0o600
    with Node(workstation.appliance("north")) as node:  # from now on it is known, to ssh as well
        assert node.pacs("version").exit_code == 0
    words = [
        "-o",
        f"UserKnownHostsFile={workstation.known_hosts}",
        "-o",
        "StrictHostKeyChecking=yes",
        "-o",
        "BatchMode=yes",
    ]
    words += ["-i", str(workstation.server.root / "client"), "-p", str(workstation.server.port)]
    subprocess.run(["ssh", "-F", "none", *words, f"{getpass.getuser()}@127.0.0.1", "true"], check=True)


def test_a_host_with_another_key_is_not_told_anything(workstation: Workstation) -> None:
    workstation.know("client")
    before = workstation.known_hosts.read_bytes()
    with (
        Node(workstation.appliance("north"), lambda *_words: True) as node,
        pytest.raises(Unreachable, match="ANOTHER host key"),
    ):
        node.pacs("version")
    assert workstation.known_hosts.read_bytes() == before


def test_a_key_that_is_not_let_in(workstation: Workstation) -> None:
    (workstation.server.root / "authorized").write_text("")
    done = workstation.fleet("status")
    assert done.returncode == 2 and f"does not let {getpass.getuser()} in" in done.stdout


def test_what_goes_wrong_there_is_told(workstation: Workstation) -> None:
    with Node(workstation.appliance("north")) as node:
        assert node.shell("printf 'a\\377\\r\\n\\0b'").output == b"a\xff\r\n\0b", "bytes come as they are"
        assert node.shell("cat", given="word\n").output == b"word\n"
        done = node.shell("printf 'bad \\033[31m\\nred' >&2; exit 3")
        assert (done.exit_code, done.said) == (3, "bad  [31m red")
        with pytest.raises(NodeFailed, match="ended with 2"):
            node.json("drill", "nonsense")
        with pytest.raises(Unreachable, match="gave no answer for"):
            node.shell("exec sleep 60", timeout_s=0.5)
        with pytest.raises(Unreachable, match="was lost"):
            node.shell("kill -9 $PPID")
        assert node.pacs("version").exit_code == 0, "it is reached again"


def test_a_drill_that_does_not_prove_anything(workstation: Workstation) -> None:
    workstation.add("south", Path("/nowhere"))
    done = workstation.fleet("drill", "--at-once", "2")
    assert done.returncode == 23 and "2 of 2 did not: north, south" in done.stderr
    lines = done.stdout.splitlines()
    assert sorted(line.split(": ")[0] for line in lines) == ["FAILED  north", "FAILED  south"]
    assert all("`pacs drill run` ended with" in line for line in lines)


def test_bundles_are_fetched_whole_or_not_at_all(with_data: Workstation, tmp_path: Path) -> None:
    to = tmp_path / "bundles" / "of today"
    with_data.add("../west", Path("/nowhere"), pacs_command="echo nothing like an archive #")
    done = with_data.fleet("support-bundle", "--to", str(to))
    assert done.returncode == 23 and "FAILED  ../west: " in done.stdout and "gave no archive" in done.stdout
    (file,) = to.iterdir()
    assert file.name.startswith("north-") and file.name.endswith(".tar.gz") and str(file) in done.stdout
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    listed = subprocess.run(["tar", "-tzf", file], capture_output=True, text=True, check=True).stdout.split()
    assert "pacs-support/about.json" in listed and "pacs-support/database.json" in listed


@pytest.mark.long
def test_what_two_hold_is_compared(with_data: Workstation, tmp_path: Path) -> None:
    """The other one is a copy of the first, index and files, with an identity of its own."""
    data, copy = tmp_path / "data", tmp_path / "copy"
    with open_instance(data) as instance:
        store(instance, ct_study(1, 3))
    (copy / "config").mkdir(parents=True)
    shutil.copy(data / "config" / "pacs.toml", copy / "config")
    ours = create_identity(copy, ("state",))
    (copy / "tier1").mkdir()
    create_identity(copy / "tier1", ("tier1",), ours.appliance_id)
    shutil.copytree(data / "tier1" / "objects", copy / "tier1" / "objects")
    with_data.add("new", copy)
    certificate = tmp_path / "equality.json"
    done = with_data.fleet("compare", "north", "new", "--to", str(certificate))
    assert done.returncode == 0, done.stdout + done.stderr
    nodes = json.loads(certificate.read_bytes())["nodes"]
    assert [node["appliance_id"] for node in nodes] == [read_identity(data).appliance_id, ours.appliance_id]
    assert [(node["objects"], node["lacking"]) for node in nodes] == [(3, 0)] * 2
    with Node(with_data.appliance("north")) as node:
        assert b"Both nodes have read every object" in node.require("holdings", "verify", str(certificate))
    next((copy / "tier1" / "objects").rglob("*.dcm")).unlink()
    done = with_data.fleet("compare", "north", "new", "--to", str(tmp_path / "none"))
    assert done.returncode == 10 and "has not read 1 of its 3 objects" in done.stderr
    assert not (tmp_path / "none").exists()
    assert with_data.fleet("compare", "north", "north", "--to", str(tmp_path / "none")).returncode == 2


@pytest.mark.long
def test_the_page_as_it_is_written(with_data: Workstation, tmp_path: Path) -> None:
    (tmp_path / "pacs").write_text(f'#!/bin/sh\nexec {sys.executable} -m pacs.cli.main "$@"\n')
    (tmp_path / "pacs").chmod(0o755)
    (tmp_path / "sudo").write_text('#!/bin/sh\nexec "$@"\n')
    (tmp_path / "sudo").chmod(0o755)
    environment = {
        **os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY),
        "ANSIBLE_INVENTORY": str(with_data.inventory), "PACS_DATA": str(tmp_path / "data"),
    }  # fmt: skip
    found = [step for page in ("fleet.md", "support-bundle.md") for step in steps(PAGES / page)]
    assert len(found) == 4
    for step in found:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", step.text], cwd=tmp_path, env=environment, check=False,
            capture_output=True, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == step.ends, f"{step}\n{done.stdout}{done.stderr}"


# --- the inventory ----------------------------------------------------------------------------------------------------


def test_the_example_is_read() -> None:
    (found,) = appliances(REPOSITORY / "inventories" / "production.example")
    assert found == Appliance("pacs.example.org", "pacs.example.org", None, "admin")


def test_groups_and_variables_of_ansible_count(tmp_path: Path) -> None:
    (tmp_path / "hosts.ini").write_text(
        "[appliance:children]\nnorth\nsouth\n[north]\na ansible_host=10.0.0.1 ansible_port=2222\n[south]\nb\na\n"
        "[appliance:vars]\nansible_user=admin\npacs_command=doas pacs\n[others]\nc\n"
    )
    found = appliances(tmp_path / "hosts.ini")
    assert found == [
        Appliance("a", "10.0.0.1", 2222, "admin", command="doas pacs"),
        Appliance("b", "b", None, "admin", command="doas pacs"),
    ]
    assert [each.name for each in appliances(tmp_path / "hosts.ini", ("b",))] == ["b"]
    with pytest.raises(NotFound, match="no appliance c in the inventory"):
        appliances(tmp_path / "hosts.ini", ("c",))


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("ansible_ssh_common_args", "-o StrictHostKeyChecking=no", "StrictHostKeyChecking=no"),
        ("ansible_ssh_extra_args", "-J jump", "ssh option -J"),
        ("ansible_password", "secret", "password in the inventory"),
    ],
)
def test_what_would_be_less_safe_than_it_looks_is_refused(variable: str, value: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as refused:
        appliance_of("a", {variable: value})
    assert "secret" not in str(refused.value)


def test_an_inventory_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text("all:\n  hosts:\n    a:\n")
    with pytest.raises(SettingsError, match="no host in the inventory's group `appliance`"):
        appliances(tmp_path / "hosts.yml")
    with pytest.raises(NotFound, match="no inventory"):
        appliances(tmp_path / "other.yml")


# --- upgrades: an appliance's `pacs` is stood in for by a script, as a slot is only written on an appliance -----------

_STAND_IN = """#!/bin/sh
# What an appliance does when it is upgraded, as far as it is seen by SSH; $1 is where it keeps what it knows.
cd "$1"; shift
say() { echo "$*" >>said; }
record() { printf '{"record_id": "%s", "outcome": "%s", "why": "%s"}' "$1" "$2" "$3" >record; }
case "$1 $2" in
"upgrade status")
    # An upgrade ends while nobody looks: the first time it has not begun, then it runs, then it is over.
    if [ -e restarting ]; then rm restarting; exit 7; fi
    if grep -qs '"outcome": ""' record; then
        [ -e seen ] && { [ "$(cat outcome)" != passed ] || cp version.next version; record 2 "$(cat outcome)" why; }
        touch seen
    fi
    printf '{"running": {"version": "%s"}, "record": %s}\\n' "$(cat version)" "$(cat record)" ;;
"upgrade apply") say "apply $(sha256sum <"$3" | cut -c1-8)"; record 2 ""; touch restarting; kill -9 $PPID ;;
"version ") cat version ;;
"check --json") echo '[{"name": "volumes", "severity": "'"$(cat severity)"'", "message": "of it", "hint": ""}]' ;;
"selftest ") say selftest ;;
*) exit 99 ;;
esac
"""


@pytest.fixture
def upgradable(workstation: Workstation, tmp_path: Path) -> Workstation:
    """Three appliances of version 1, and a file that brings version 2."""
    workstation.hosts.clear()
    (tmp_path / "stand-in").write_text(_STAND_IN)
    for name in ("east", "north", "south"):
        folder = tmp_path / name
        (folder / "uploads").mkdir(parents=True)
        for file, content in {
            "version": "1", "version.next": "2", "severity": "warning", "outcome": "passed", "record": "null",
        }.items():  # fmt: skip
            (folder / file).write_text(content)
        command = f"sh {tmp_path}/stand-in {folder}"
        workstation.add(name, folder, pacs_command=command, pacs_upload_folder=f"{folder}/uploads")
    (tmp_path / "manifest.json").write_text('{"version": "2"}')
    subprocess.run(["tar", "-C", tmp_path, "-cf", tmp_path / "file.upgrade", "manifest.json"], check=True)
    return workstation


def said(folder: Path) -> list[str]:
    return (folder / "said").read_text().splitlines() if (folder / "said").exists() else []


def upgrade(workstation: Workstation, folder: Path, *names: str) -> list[Outcome]:
    """As `pacs fleet upgrade` does it, without its waiting."""
    work = Upgrade(folder / "file.upgrade", lambda *_words: None, lambda _seconds: None, 60)
    outcomes = []
    for appliance in appliances(workstation.inventory, names):
        with Node(appliance) as node:
            outcomes.append(work.run(node))
    return outcomes


def test_an_upgrade_goes_from_one_to_the_next(upgradable: Workstation, tmp_path: Path) -> None:
    (tmp_path / "north" / "version").write_text("2")
    assert [each.message for each in upgrade(upgradable, tmp_path, "east", "north")] == ["runs 2", "runs 2 already"]
    digest = hashlib.sha256((tmp_path / "file.upgrade").read_bytes()).hexdigest()
    assert said(tmp_path / "east") == [f"apply {digest[:8]}", "selftest"]
    assert said(tmp_path / "north") == ["selftest"]
    assert list((tmp_path / "east" / "uploads").iterdir()) == [], "the file does not stay there"


@pytest.mark.long
def test_an_upgrade_that_was_killed_goes_on(upgradable: Workstation, tmp_path: Path) -> None:
    digest = hashlib.sha256((tmp_path / "file.upgrade").read_bytes()).hexdigest()
    (tmp_path / "east" / "uploads" / f"pacs-{digest[:16]}.upgrade").write_bytes(b"half of it")
    (tmp_path / "north" / "record").write_text('{"record_id": "2", "outcome": "", "why": ""}')
    outcomes = upgrade(upgradable, tmp_path, "east", "north")
    assert [(each.succeeded, each.message) for each in outcomes] == [(True, "runs 2"), (True, "runs 2")]
    assert said(tmp_path / "east") == [f"apply {digest[:8]}", "selftest"]
    assert said(tmp_path / "north") == ["selftest"], "what was applied is not applied again"


@pytest.mark.long
@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("severity", "critical", "It is not well, and was left as it is. volumes: of it"),
        ("outcome", "rolled back", "The upgrade did not pass, and it works as before: rolled back: why"),
        ("version.next", "1", "does not run 2"),
    ],
)
def test_one_that_does_not_come_through_it(
    upgradable: Workstation, tmp_path: Path, file: str, content: str, message: str
) -> None:
    (tmp_path / "east" / file).write_text(content)
    (outcome,) = upgrade(upgradable, tmp_path, "east")
    assert not outcome.succeeded and message in outcome.message


def test_the_others_stay_as_they_are(upgradable: Workstation, tmp_path: Path) -> None:
    (tmp_path / "east" / "severity").write_text("critical")
    done = upgradable.fleet("upgrade", str(tmp_path / "file.upgrade"))
    assert done.returncode == 23
    assert "FAILED  east: " in done.stdout and "Not touched: north, south." in done.stderr
    assert said(tmp_path / "north") == said(tmp_path / "south") == []


def test_what_is_no_upgrade_file_goes_nowhere(upgradable: Workstation, tmp_path: Path) -> None:
    (tmp_path / "file.upgrade").write_bytes(b"something else")
    done = upgradable.fleet("upgrade", str(tmp_path / "file.upgrade"))
    assert done.returncode == 2 and "is no upgrade file" in done.stderr
