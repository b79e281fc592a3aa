"""Configuration, identity and journal come back as they were, from a folder and over SFTP; keys are not among them."""

from __future__ import annotations

import base64
import getpass
import os
from pathlib import Path

import pytest

from pacs.backup.configuration import Configuration
from pacs.backup.pgbackrest import configuration
from pacs.backup.repositories import Repository
from pacs.errors import BackupError, NotFound, RestoreError, SettingsError
from pacs.storage.keyring import Keyring
from tests.sftp_server import SftpServer


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with one of everything."""
    root = tmp_path / "data"
    for name, content in {
        "volume.json": "{}", "config/pacs.toml": "ae_title = 'X'\n", "config/keys/keyring.json": "secret",
        "config/ssh/admin": "ssh-ed25519 …", "identity/tls/key.pem": "private", "journal/2026-11.jsonl": "{}\n",
        "receipts/2026-11.jsonl": "made again", "tier1/objects/x.dcm": "an image",
    }.items():  # fmt: skip
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (root / "identity/tls/key.pem").chmod(0o600)
    (root / "identity").chmod(0o700)
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Repository:
    (tmp_path / "repository").mkdir()
    return Repository("usb", str(tmp_path / "repository"), "local")


@pytest.fixture
def far(tmp_path: Path, sftp_server: SftpServer) -> Repository:
    place = tmp_path / "far"
    place.mkdir()
    credentials = tmp_path / "far.credentials"
    credentials.write_bytes(sftp_server.login)
    host_key = " ".join((sftp_server.root / "host.pub").read_text().split()[:2])
    return Repository("far", sftp_server.location(place), "sftp", "", {"host_key": host_key}, credentials=credentials)


def files_below(root: Path) -> dict[str, tuple[str, int]]:
    return {
        str(path.relative_to(root)): (path.read_text(), path.stat().st_mode & 0o777)
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("kind", ["folder", "far"])
def test_it_comes_back_as_it_was(request: pytest.FixtureRequest, kind: str, data: Path, tmp_path: Path) -> None:
    repository, keyring = request.getfixturevalue(kind), Keyring.make()
    snapshots = Configuration(repository, keyring, tmp_path / "files")
    first = snapshots.back_up(data)
    before = files_below(data)
    (data / "config/pacs.toml").write_text("ae_title = 'Y'\n")
    second = snapshots.back_up(data)
    assert [each.snapshot_id for each in snapshots.snapshots()] == [first.snapshot_id, second.snapshot_id]

    restored = tmp_path / "restored"
    assert snapshots.restore(restored, first.snapshot_id) == snapshots.snapshots()[0]
    back = files_below(restored)
    assert back == {name: before[name] for name in before if name.split("/")[0] in ("volume.json", "config", "identity",
                    "journal") and not name.startswith("config/keys")}  # fmt: skip
    assert (restored / "identity").stat().st_mode & 0o777 == 0o700
    snapshots.restore(restored)
    assert (restored / "config/pacs.toml").read_text() == "ae_title = 'Y'\n"
    only = tmp_path / "only"
    snapshots.restore(only, parts=("journal",))
    assert list(files_below(only)) == ["journal/2026-11.jsonl"]


def test_what_is_damaged_or_not_ours_is_told(data: Path, folder: Repository, tmp_path: Path) -> None:
    snapshots = Configuration(folder, Keyring.make(), tmp_path)
    with pytest.raises(BackupError, match="config file"):
        snapshots.snapshots()
    snapshots.back_up(data)
    with pytest.raises(NotFound, match="no snapshot deadbeef"):
        snapshots.restore(tmp_path / "restored", "deadbeef")
    with pytest.raises(BackupError, match="wrong password"):
        Configuration(folder, Keyring.make(), tmp_path).snapshots()
    for pack in Path(folder.place, "restic/data").rglob("*"):
        if pack.is_file():
            pack.chmod(0o600)
            content = bytearray(pack.read_bytes())
            content[len(content) // 2] ^= 1
            content[10] ^= 1
            pack.write_bytes(content)
    with pytest.raises(BackupError):
        snapshots.verify()
    with pytest.raises(RestoreError):
        snapshots.restore(tmp_path / "restored")


def test_pgbackrest_knows_the_server_by_its_key(far: Repository, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    lines = configuration(far, Keyring.make(), tmp_path, None, folder).splitlines()
    found = dict(line.split("=", 1) for line in lines if "=" in line)
    assert found["repo1-type"] == "sftp" and found["repo1-path"].endswith("/far/pgbackrest")
    assert found["repo1-sftp-host-user"] == getpass.getuser()
    key = Path(found["repo1-sftp-private-key-file"])
    assert key.read_text().startswith("-----BEGIN") and key.stat().st_mode & 0o077 == 0
    assert len(bytes.fromhex(found["repo1-sftp-host-fingerprint"])) == 32
    other = {"host_key": f"ssh-ed25519 {base64.b64encode(os.urandom(51)).decode()}"}
    stranger = Repository("far", far.place, "sftp", "", other, credentials=far.credentials)
    with pytest.raises(BackupError):
        Configuration(stranger, Keyring.make(), folder).back_up(tmp_path)
    far.credentials.write_text('password = "x"\n')
    with pytest.raises(SettingsError, match="by key, not by password"):
        configuration(far, Keyring.make(), tmp_path, None, folder)
