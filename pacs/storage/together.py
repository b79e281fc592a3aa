"""Many files put on a mounted volume at once, for the price of a few syncs.

    all are written to temporary files → one sync of the file system → all are renamed → one fsync a folder, or where
    they are many one more sync of the file system

What others have written there is synced with them: this is for batches, not for a file or two.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pacs.errors import PacsError
from pacs.storage import durable
from pacs.storage.incoming import ReceivedFile
from pacs.storage.kinds import ToPut

if TYPE_CHECKING:
    from pacs.storage.files import LocalVolume


#: In how many folders names are synced one by one.
_FOLDERS_MAX = 8


def put_together(volume: LocalVolume, files: Sequence[ToPut]) -> list[bytes | PacsError]:
    """Put files; beside each the SHA-256 of what was given, or why it is not there."""
    try:
        with durable.open_folder(volume.root) as root_fd:  # before anything is written: it tells of errors since
            return _put(volume, files, root_fd)
    except OSError as error:
        return [durable.as_volume_error(error, volume.root)] * len(files)


def _put(volume: LocalVolume, files: Sequence[ToPut], root_fd: int) -> list[bytes | PacsError]:
    outcomes: dict[int, bytes | PacsError] = {}
    written: dict[int, ReceivedFile] = {}
    try:  # asked once for all of them; else of each, which says which of them it is
        volume.require_writable()
        volume.require_room(sum(file.size_bytes for file in files))
        is_room_known = True
    except PacsError:
        is_room_known = False
    try:
        for number, file in enumerate(files):
            try:
                written[number] = volume.write(file.chunks, file.size_bytes, is_room_known).finish_unsynced()
            except PacsError as error:
                outcomes[number] = error
        durable.sync_file_system(root_fd)
    except OSError as error:
        _discard(volume, written.values())
        outcomes |= dict.fromkeys(written, durable.as_volume_error(error, volume.root))
        written.clear()
    except BaseException:
        _discard(volume, written.values())
        raise
    _give_names(volume, files, written, outcomes, root_fd)
    return [outcomes[number] for number in range(len(files))]


def _give_names(
    volume: LocalVolume,
    files: Sequence[ToPut],
    written: dict[int, ReceivedFile],
    outcomes: dict[int, bytes | PacsError],
    root_fd: int,
) -> None:
    """Give files that are synced their names, and have those on the disk."""
    numbers_in: dict[Path, list[int]] = {}
    for number in written:
        numbers_in.setdefault((volume.root / files[number].path).parent, []).append(number)
    is_synced_at_once = len(numbers_in) > _FOLDERS_MAX
    named: dict[Path, list[int]] = {}
    if is_synced_at_once:
        try:
            volume.require_present()  # else folders would be made below the mount point
        except PacsError as error:
            _discard(volume, written.values())
            outcomes |= dict.fromkeys(written, error)
            return
    for folder, numbers in numbers_in.items():
        for number in numbers:
            try:
                volume.give_name(written[number], files[number].path, is_synced_at_once)
                outcomes[number] = written[number].sha256
                named.setdefault(folder, []).append(number)
            except PacsError as error:
                outcomes[number] = error
    if is_synced_at_once:
        all_named = [number for numbers in named.values() for number in numbers]
        _sync(partial(durable.sync_file_system, root_fd), volume, files, all_named, outcomes)
        return
    for folder, numbers in named.items():
        _sync(partial(durable.fsync_folder, folder), volume, files, numbers, outcomes)


def _sync(
    sync: Callable[[], None],
    volume: LocalVolume,
    files: Sequence[ToPut],
    numbers: Sequence[int],
    outcomes: dict[int, bytes | PacsError],
) -> None:
    """Have the names of some files on the disk; where that fails none of them is there."""
    try:
        sync()
    except OSError as error:
        for number in numbers:
            with contextlib.suppress(OSError):
                (volume.root / files[number].path).unlink()
        outcomes |= dict.fromkeys(numbers, durable.as_volume_error(error, volume.root))


def _discard(volume: LocalVolume, received: Iterable[ReceivedFile]) -> None:
    for each in received:
        volume.discard(each)
