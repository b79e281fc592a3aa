"""Which commands are in the audit log, and with which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from pacs.cli.audited import audited, is_told, split, without_secrets
from pacs.storage.audit import AuditLog


def test_the_instance_and_the_words_are_found() -> None:
    assert split(["--data", "/a", "-v", "study", "list"], {}) == (Path("/a"), ["study", "list"])
    assert split(["--data=/a", "study"], {"PACS_DATA": "/b"}) == (Path("/a"), ["study"])
    assert split(["study", "--data"], {"PACS_DATA": "/b"}) == (Path("/b"), ["study", "--data"])
    assert split(["study"], {})[0] is None


def test_services_and_help_are_not_told_of() -> None:
    assert is_told(["study", "list"])
    assert not any(map(is_told, ([], ["worker", "run"], ["check"], ["study", "--help"], ["audit", "show"])))


def test_secrets_are_left_out() -> None:
    words = ["dicom-user", "add", "anna", "--passcode", "s3cret", "--password-file=/p", "--name", "x"]
    assert without_secrets(words) == [
        "dicom-user", "add", "anna", "--passcode", "***", "--password-file=***", "--name", "x",
    ]  # fmt: skip


def test_a_command_is_told_before_it_runs_and_once_more_when_it_fails(tmp_path: Path) -> None:
    words = ["--data", str(tmp_path), "device", "list"]
    with audited(words):
        pass
    assert not (tmp_path / "audit").exists(), "there is no instance"
    (tmp_path / "volume.json").write_text("{}")
    log = AuditLog(tmp_path)
    with pytest.raises(SystemExit), audited(words):
        assert [each["text"] for each in log.read(2)] == ["pacs device list"]
        raise SystemExit(9)
    assert [(each["text"], each.get("o", 0)) for each in log.read(2)] == [
        ("pacs device list", 0), ("pacs device list ended with 9", 4),
    ]  # fmt: skip
    with audited(words):
        raise_nothing = True
    assert raise_nothing and len(list(log.read(2))) == 3
