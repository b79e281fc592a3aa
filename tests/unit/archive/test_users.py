"""Users and their passcodes: hashed, durable, never readable."""

from __future__ import annotations

from pathlib import Path

import pytest

from pacs.archive.users import Users
from pacs.errors import NotFound, SettingsError, UsageError


@pytest.fixture
def users(tmp_path: Path) -> Users:
    """Nobody yet."""
    (tmp_path / "config").mkdir()
    return Users(tmp_path)


def test_a_passcode_is_compared_and_not_kept(users: Users) -> None:
    users.put("anna", "correct horse")
    users.put("bert", "correct horse")
    assert users.names() == ["anna", "bert"]
    assert users.is_passcode("anna", b"correct horse")
    assert not users.is_passcode("anna", b"correct horsf")
    assert not users.is_passcode("anna", b"")
    assert not users.is_passcode("carl", b"correct horse")
    kept = users.path.read_text()
    assert "horse" not in kept
    assert len(set(kept.split('"'))) > 8, "each has a salt of its own"
    users.put("anna", "another one")
    assert not users.is_passcode("anna", b"correct horse")
    users.remove("anna")
    with pytest.raises(NotFound):
        users.remove("anna")
    assert users.path.stat().st_mode & 0o007 == 0


@pytest.mark.parametrize(("name", "passcode"), [("", "long enough"), ("a\nb", "long enough"), ("anna", "short")])
def test_what_cannot_be_one_is_refused(users: Users, name: str, passcode: str) -> None:
    with pytest.raises(UsageError):
        users.put(name, passcode)


@pytest.mark.parametrize("content", ["", "[]", '{"anna": {}}', "\xff"])
def test_a_file_that_cannot_be_read_lets_nobody_in(users: Users, content: str) -> None:
    users.path.write_bytes(content.encode("latin-1"))
    with pytest.raises(SettingsError, match="Remove it"):
        users.names()
