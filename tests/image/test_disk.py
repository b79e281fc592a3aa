"""The system disk as it is delivered, before any boot: nothing of the build, nothing two appliances would share."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.image.filesystem import NotThereError, RootFilesystem
from tests.image.ova import Imported, is_blank

_BUILD_USERS = {"packer", "builder", "build", "vagrant", "debian", "ansible"}
_PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY")


@pytest.fixture(scope="module")
def etc(root: RootFilesystem, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """/etc of the system disk."""
    return root.extract("/etc", tmp_path_factory.mktemp("disk"))


def _accounts(etc: Path) -> dict[str, list[str]]:
    lines = (etc / "passwd").read_text("utf-8").splitlines()
    return {line.split(":")[0]: line.split(":") for line in lines}


def test_machine_id_is_empty(root: RootFilesystem) -> None:
    assert root.read("/etc/machine-id").strip() in (b"", b"uninitialized")


def test_no_host_key_of_ssh(etc: Path) -> None:
    assert list((etc / "ssh").glob("ssh_host_*")) == []


def test_no_private_key_in_etc(etc: Path) -> None:
    found = [
        path.relative_to(etc)
        for path in etc.rglob("*")
        if path.is_file() and not path.is_symlink() and _PRIVATE_KEY.search(path.read_bytes())
    ]
    assert found == []


def test_no_authorized_key_and_no_history(root: RootFilesystem, etc: Path, tmp_path: Path) -> None:
    homes = [root.extract("/root", tmp_path), root.extract("/home", tmp_path)]
    traces = {"authorized_keys", "authorized_keys2", ".bash_history", ".ansible", ".lesshst", ".python_history"}
    found = [str(path) for home in homes for path in home.rglob("*") if path.name in traces]
    assert found == []
    keys = etc / "ssh" / "authorized_keys.d"
    assert not keys.exists() or list(keys.iterdir()) == []


def test_no_user_of_the_build(root: RootFilesystem, etc: Path) -> None:
    accounts = _accounts(etc)
    people = {name for name, fields in accounts.items() if 1000 <= int(fields[2]) < 60000}
    assert people == {"admin", "pacs", "postgres"}
    assert not _BUILD_USERS & accounts.keys()
    assert root.names("/home") == ["admin"]
    sudoers = "\n".join(path.read_text("utf-8") for path in (etc / "sudoers.d").iterdir())
    allowed = {line.split()[0] for line in sudoers.splitlines() if line.strip() and not line.startswith("#")}
    assert allowed <= {"admin", "Defaults"}


def test_nobody_has_a_password(etc: Path) -> None:
    shadow = [line.split(":") for line in (etc / "shadow").read_text("utf-8").splitlines()]
    assert {fields[0] for fields in shadow if not fields[1].startswith(("!", "*"))} == set()


@pytest.mark.parametrize(("user", "uid"), [("pacs", 2100), ("postgres", 2101), ("admin", 2000)])
def test_users_have_the_numbers_that_stand_on_the_data_disks(etc: Path, user: str, uid: int) -> None:
    assert int(_accounts(etc)[user][2]) == uid


def test_no_package_lists(root: RootFilesystem) -> None:
    assert set(root.names("/var/lib/apt/lists")) <= {"auxfiles", "lock", "partial"}
    assert set(root.names("/var/cache/apt/archives")) <= {"lock", "partial"}


@pytest.mark.parametrize(
    "path",
    [
        "/var/lib/cloud/instance",
        "/var/lib/cloud/instances",
        "/var/lib/systemd/random-seed",
        "/var/lib/systemd/credential.secret",
        "/var/lib/dbus/machine-id",
        "/var/lib/postgresql/17/main",
        "/etc/pacs/machine.env",
        "/srv/pacs/state/volume.json",
    ],
)
def test_nothing_of_a_first_boot(root: RootFilesystem, path: str) -> None:
    assert not root.exists(path)


def test_no_journal_and_no_leases(root: RootFilesystem) -> None:
    for folder in ("/var/log/journal", "/var/lib/dhcp", "/var/lib/systemd/network"):
        try:
            assert root.names(folder) == []
        except NotThereError:
            continue


def test_no_proxy_of_the_build(etc: Path) -> None:
    """A proxy of the network that it was built in is of no use in another."""
    texts = [path.read_text("utf-8", "replace") for path in (etc / "apt").rglob("*") if path.is_file()]
    assert not any("Acquire::http::Proxy" in text for text in texts)


def test_the_ova_is_small(ova: Path) -> None:
    assert ova.stat().st_size < 600e6


def test_data_disks_are_three_and_blank(imported: Imported) -> None:
    assert len(imported.data_disks) == 3
    for disk in imported.data_disks:
        assert is_blank(disk), f"{disk.name} is not blank"


def test_the_smallest_is_for_state(imported: Imported) -> None:
    sizes = [disk.stat().st_size for disk in imported.data_disks]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 3
