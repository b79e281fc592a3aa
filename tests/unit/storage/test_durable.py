"""Durable writes: whole or not there, and each failure in the words of the error tree."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from pacs.errors import VolumeFailed, VolumeFull
from pacs.storage import durable


def failing(monkeypatch: pytest.MonkeyPatch, name: str, number: int, from_call: int = 1) -> None:
    """Make a function of os fail with an error number, from its n-th call on."""
    real: Callable[..., object] = getattr(os, name)
    calls = 0

    def fail(*args: object, **words: object) -> object:
        nonlocal calls
        calls += 1
        if calls >= from_call:
            raise OSError(number, os.strerror(number))
        return real(*args, **words)

    monkeypatch.setattr(os, name, fail)


def test_a_new_file_is_whole_and_never_replaces(tmp_path: Path) -> None:
    target = tmp_path / "a"
    durable.create_file(target, b"one", mode=0o600)
    with pytest.raises(FileExistsError):
        durable.create_file(target, b"two")
    assert target.read_bytes() == b"one"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [target]


def test_a_replaced_file_is_the_new_one(tmp_path: Path) -> None:
    target = tmp_path / "a"
    for content in (b"one", b"two"):
        durable.replace_file(target, content)
        assert target.read_bytes() == content
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("write", [durable.create_file, durable.replace_file])
def test_a_failed_fsync_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path, bytes], None]
) -> None:
    target = tmp_path / "a"
    if write is durable.replace_file:
        target.write_bytes(b"old")
    before = [(path.name, path.read_bytes()) for path in tmp_path.iterdir()]
    failing(monkeypatch, "fsync", errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        write(target, b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == before


def test_every_new_folder_is_made_durable_in_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(Path(f"/proc/self/fd/{fd}").readlink()), real(fd)))
    durable.make_folders(tmp_path / "a" / "b" / "c")
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
    durable.make_folders(tmp_path / "a" / "b" / "c")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_room_is_a_full_volume(number: int) -> None:
    error = durable.as_volume_error(OSError(number, "x"), Path("/srv"))
    assert isinstance(error, VolumeFull)
    assert error.status == 0xA700


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.EFBIG, errno.ENODEV])
def test_any_other_fault_is_a_failed_volume(number: int) -> None:
    error = durable.as_volume_error(OSError(number, os.strerror(number)), Path("/srv"))
    assert isinstance(error, VolumeFailed)
    assert error.status == 0xA700
    assert "/srv" in str(error)
