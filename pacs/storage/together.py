"""Many files put on a mounted volume at once, for the price of a few syncs.

    all are written to temporary files → one sync of the file system → all are renamed → one fsync a folder

What others have written there is synced with them: this is for batches, not for a file or two.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pacs.errors import PacsError
from pacs.storage import durable
from pacs.storage.incoming import ReceivedFile
from pacs.storage.kinds import ToPut

if TYPE_CHECKING:
    from pacs.storage.files import LocalVolume


def put_together(volume: LocalVolume, files: Sequence[ToPut]) -> list[bytes | PacsError]:
    """Put files; beside each the SHA-256 of what was given, or why it is not there."""
    outcomes: dict[int, bytes | PacsError] = {}
    written: dict[int, ReceivedFile] = {}
    try:  # asked once for all of them; else of each, which says which of them it is
        volume.require_writable()
        volume.require_room(sum(file.size_bytes for file in files))
        is_room_known = True
    except PacsError:
        is_room_known = False
    try:
        with durable.open_folder(volume.root) as root_fd:  # before anything is written: it tells of errors since
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
    folders: dict[str, list[tuple[int, str]]] = {}
    for number in written:
        folder, _, name = files[number].path.rpartition("/")
        folders.setdefault(folder, []).append((number, name))
    for folder, named in folders.items():
        failures = volume.place_in(folder, [(written[number], name) for number, name in named])
        for (number, _name), failure in zip(named, failures, strict=True):
            outcomes[number] = failure or written[number].sha256
    return [outcomes[number] for number in range(len(files))]


def _discard(volume: LocalVolume, received: Iterable[ReceivedFile]) -> None:
    for each in received:
        volume.discard(each)
