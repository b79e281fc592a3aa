"""What pgBackRest is told of each kind of repository. That it does it is shown with real clusters
(tests/integration/test_cluster_backup.py)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pacs.backup.pgbackrest import PgBackRest, configuration, reason
from pacs.backup.repositories import Repository
from pacs.errors import BackupError, SettingsError
from pacs.index.server import ServerPlace
from pacs.storage.keyring import Keyring
from tests.fix_bucket import write_credentials

SERVER = ServerPlace(Path("/srv/pacs/state/postgresql/17/main"), "/run/postgresql", 5432, "pacs")


def options(repository: Repository) -> dict[str, str]:
    lines = configuration(
        repository, Keyring.make(), Path("/run/pacs/pgbackrest"), SERVER, repository.credentials.parent / "files"
    ).splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


@pytest.mark.parametrize(("kind", "expected"), [("local", "posix"), ("nfs", "posix"), ("smb", "cifs")])
def test_a_folder(kind: str, expected: str) -> None:
    found = options(Repository("usb", "/srv/pacs/backup", kind, keep_full=3))  # type: ignore[arg-type]
    assert found["repo1-type"] == expected
    assert found["repo1-path"] == "/srv/pacs/backup/pgbackrest"
    assert found["repo1-retention-full"] == "3"
    assert found["repo1-cipher-type"] == "aes-256-cbc" and len(found["repo1-cipher-pass"]) > 40
    assert found["pg1-path"] == str(SERVER.data_directory) and found["pg1-socket-path"] == "/run/postgresql"


def test_a_bucket(tmp_path: Path) -> None:
    credentials = write_credentials(tmp_path / "far.credentials", "id", "secret")
    (tmp_path / "far.pem").write_text("certificate")
    far = {"endpoint": "https://objects.example:8443", "ca_file": "far.pem", "region": "eu-1"}
    found = options(Repository("far", "s3://bucket/a/b", "s3", options=far, credentials=credentials))
    assert found["repo1-path"] == "/a/b/pgbackrest"
    assert (found["repo1-s3-endpoint"], found["repo1-storage-port"]) == ("objects.example", "8443")
    assert found["repo1-s3-uri-style"] == "path"
    assert Path(found["repo1-storage-ca-file"]).read_text() == "certificate"
    assert (found["repo1-s3-key"], found["repo1-s3-key-secret"]) == ("id", "secret")
    with pytest.raises(SettingsError, match="by https only"):
        options(Repository("far", "s3://bucket", "s3", options={"endpoint": "http://x"}, credentials=credentials))


def test_a_line_break_gets_into_no_configuration() -> None:
    with pytest.raises(SettingsError, match="line break"):
        options(Repository("usb", "/srv/pacs\nrepo1-cipher-type=none", "local"))


def test_a_reason_is_pgbackrests_own_or_its_exit_code() -> None:
    said = "P00  ERROR: [103]: unable to find a valid repository:\n       repo1: [FileOpenError] no such file\n"
    assert reason(said, 103) == "[103]: unable to find a valid repository: repo1: [FileOpenError] no such file."
    assert "137" in reason("", 137)


def test_one_that_says_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As pgBackRest does whose repository is on a share that died: it says something, and never ends."""
    program = tmp_path / "pgbackrest"
    program.write_text("#!/bin/sh\necho begun\nexec sleep 1000\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    lines: list[str] = []
    with pytest.raises(BackupError, match="done nothing for 1 s and is left behind"):
        PgBackRest(tmp_path / "any.conf").watch(["backup"], lines.append, silence_s=1)
    assert lines == ["begun\n"]


def test_what_it_says_and_why_it_failed_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "pgbackrest"
    program.write_text("#!/bin/sh\nseq 1 3\necho 'ERROR: [055]: no such'; echo '  place'; exit 55\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    lines: list[str] = []
    with pytest.raises(BackupError, match=r"no such place"):
        PgBackRest(tmp_path / "any.conf").watch(["info"], lines.append)
    assert lines[:3] == ["1\n", "2\n", "3\n"]
