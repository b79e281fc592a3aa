"""A vault's folder: what its owner takes away is kept, and what was can be put back."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from pacs import clock
from pacs.errors import UsageError, VolumeMissing
from pacs.storage.vault import VaultFolder

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> VaultFolder:
    return VaultFolder.make(tmp_path / "disk", "safe")


def _write(folder: VaultFolder, name: str, content: bytes, at: datetime, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that came at a moment."""
    monkeypatch.setattr(clock, "now", lambda: at)
    path = folder.path(f"/repository/{name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = folder.create(path)
    os.write(fd, content)
    os.close(fd)
    os.utime(path, (at.timestamp(), at.timestamp()))
    return path


def _contents(folder: VaultFolder) -> dict[str, bytes]:
    found = (each for each in folder.root.rglob("*") if each.is_file())
    return {str(each.relative_to(folder.root)): each.read_bytes() for each in found}


def test_a_folder_is_a_vault_or_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VolumeMissing, match="mounted"):
        VaultFolder(tmp_path)
    VaultFolder.make(tmp_path / "disk", "safe")
    VaultFolder.make(tmp_path / "disk", "safe")
    with pytest.raises(UsageError, match="the vault safe"):
        VaultFolder.make(tmp_path / "disk", "other")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter").touch()
    with pytest.raises(UsageError, match="not empty"):
        VaultFolder.make(tmp_path / "full", "safe")


@pytest.mark.parametrize(
    "name", ["/", "/vault.json", "/kept/x", "/repository/../vault.json", "../etc", "/repository/\0"]
)
def test_nothing_is_reached_but_the_one_folder(folder: VaultFolder, name: str) -> None:
    with pytest.raises(FileNotFoundError):
        folder.path(name)


def test_whatever_was_done_since_is_undone_and_that_too(folder: VaultFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    hour = timedelta(hours=1)
    for name in ("objects/aa/1", "objects/aa/2", "objects/bb/3", "points/1"):
        _write(folder, name, name.encode(), NOON, monkeypatch)
    _write(folder, "volume.json", b"first", NOON, monkeypatch)
    good = _contents(folder)

    # At 13:00 all is removed, renamed or written over; at 14:00 something comes; at 15:00 one of it once more.
    monkeypatch.setattr(clock, "now", lambda: NOON + hour)
    folder.put_aside(folder.path("/repository/objects/aa/1"))
    folder.rename(folder.path("/repository/objects/aa/2"), folder.path("/repository/objects/bb/3"), is_young=False)
    _write(folder, "volume.json", b"PAY", NOON + hour, monkeypatch)
    _write(folder, "objects/aa/1", b"PAY", NOON + 2 * hour, monkeypatch)
    _write(folder, "new", b"PAY", NOON + 2 * hour, monkeypatch)
    _write(folder, "objects/aa/1", b"PAY TWICE", NOON + 3 * hour, monkeypatch)
    bad = _contents(folder)
    assert bad["objects/aa/1"] == b"PAY TWICE" and "objects/aa/2" not in bad

    monkeypatch.setattr(clock, "now", lambda: NOON + 5 * hour)
    done = folder.rewind(NOON + hour / 2)
    assert _contents(folder) == good
    assert (done.put_back, done.put_aside) == (4, 4)
    assert folder.rewind(NOON + hour / 2).put_back == 0
    # It is done on the next day as well, and what was between is found too.
    monkeypatch.setattr(clock, "now", lambda: NOON + 30 * hour)
    folder.rewind(NOON + 2.5 * hour)
    assert _contents(folder)["objects/aa/1"] == b"PAY"
    folder.rewind(NOON + 4 * hour)
    assert _contents(folder) == bad
    folder.rewind(NOON + hour / 2)
    assert _contents(folder) == good


def test_a_rewind_that_was_ended_is_given_again(folder: VaultFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        _write(folder, f"objects/{number}", b"good", NOON, monkeypatch)
    for number in range(4):
        _write(folder, f"objects/{number}", b"PAY", NOON + timedelta(hours=1), monkeypatch)
    link, left = os.link, [2]

    def ended(source: Path, target: Path) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        link(source, target)

    monkeypatch.setattr(clock, "now", lambda: NOON + timedelta(hours=2))
    monkeypatch.setattr(os, "link", ended)
    with pytest.raises(KeyboardInterrupt):
        folder.rewind(NOON)
    monkeypatch.setattr(os, "link", link)
    assert set(_contents(folder).values()) == {b"good", b"PAY"}
    folder.rewind(NOON)
    assert _contents(folder) == {f"objects/{number}": b"good" for number in range(4)}


def test_it_is_told_by_the_hour_and_purged_by_the_day(folder: VaultFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("objects/1", "objects/2", "points/1"):
        _write(folder, name, b"1234", NOON, monkeypatch)
    monkeypatch.setattr(clock, "now", lambda: NOON + timedelta(minutes=7))
    for name in ("objects/1", "points/1"):
        folder.put_aside(folder.path(f"/repository/{name}"))
    monkeypatch.setattr(clock, "now", lambda: NOON + timedelta(days=1))
    folder.put_aside(folder.path("/repository/objects/2"))
    told = [(each.hour, each.files, each.objects, each.size_bytes) for each in folder.kept()]
    assert told == [(NOON, 2, 1, 8), (NOON + timedelta(days=1), 1, 1, 4)]
    assert folder.purge(date(2026, 11, 22)) == 0
    assert folder.purge(date(2026, 11, 23)) == 1
    assert [each.files for each in folder.kept()] == [1]
