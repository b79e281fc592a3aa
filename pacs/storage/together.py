"""Many files put on a mounted volume at once, for the price of a few syncs.

    all are written to temporary files → one sync of the file system → all are renamed → one fsync a folder, or where
    they are many one more sync of the file system

What others have written there is synced with them: this is for batches, not for a file or two.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from pacs.errors import PacsError
from pacs.storage import durable
from pacs.storage.incoming import ReceivedFile
from pacs.storage.kinds import ToPut, Volume

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
    folders: dict[str, list[tuple[int, str]]] = {}
    for number in written:
        folder, _, name = files[number].path.rpartition("/")
        folders.setdefault(folder, []).append((number, name))
    if len(folders) > _FOLDERS_MAX:
        _give_names_at_once(volume, files, written, outcomes, root_fd)
        return
    for folder, named in folders.items():
        failures = volume.place_in(folder, [(written[number], name) for number, name in named])
        for (number, _name), failure in zip(named, failures, strict=True):
            outcomes[number] = failure or written[number].sha256


def _give_names_at_once(
    volume: LocalVolume,
    files: Sequence[ToPut],
    written: dict[int, ReceivedFile],
    outcomes: dict[int, bytes | PacsError],
    root_fd: int,
) -> None:
    """The same in many folders: one sync of the file system for all of them."""
    try:
        volume.require_present()  # else folders would be made below the mount point
    except PacsError as error:
        _discard(volume, written.values())
        outcomes |= dict.fromkeys(written, error)
        return
    for number, received in written.items():
        outcomes[number] = volume.place_unsynced(received, files[number].path) or received.sha256
    try:
        durable.sync_file_system(root_fd)
    except OSError as error:
        named = [number for number in written if isinstance(outcomes[number], bytes)]
        for number in named:
            with contextlib.suppress(OSError):
                (volume.root / files[number].path).unlink()
        outcomes |= dict.fromkeys(named, durable.as_volume_error(error, volume.root))


def _discard(volume: LocalVolume, received: Iterable[ReceivedFile]) -> None:
    for each in received:
        volume.discard(each)


def put_each(volume: Volume, files: Sequence[ToPut], at_once: int) -> list[bytes | PacsError]:
    """Put files one by one, some at once, where nothing is shared between them: a bucket, a server. Beside each its
    SHA-256, or why it is not there."""

    def put(file: ToPut) -> bytes | PacsError:
        try:
            return volume.put(file.path, file.chunks, file.size_bytes)
        except PacsError as error:
            return error

    with ThreadPoolExecutor(at_once, "put") as threads:
        return list(threads.map(put, files))
