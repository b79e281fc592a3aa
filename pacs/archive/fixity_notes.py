"""When a volume's copies were last read, and which of them are known to be lost: kept on the volume itself.

The scrub writes `fixity.json` beside the objects when it is done (pacs/index has the same). An index that was rebuilt
takes it from there: else all of the archive would count as never read, and with --trust-names a copy that is known to
be bad would be good again. What is taken in is only ever doubt, or a date that the index does not have: an index that
knows of a reading keeps what it knows.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from pacs import clock
from pacs.errors import PacsError
from pacs.index import fixity_notes as rows
from pacs.index.database import Database
from pacs.index.fixity_notes import LostCopy
from pacs.storage.kinds import Volume

log = logging.getLogger(__name__)

FILE = "fixity.json"
FORMAT = 1


def write_notes(database: Database, volumes: Iterable[Volume]) -> None:
    """Note on each of the archive's own volumes what the index knows of it. One that cannot be written is left."""
    for volume in volumes:
        try:
            content = {
                "format": FORMAT,
                "folders": {folder: at.isoformat() for folder, at in rows.dates(database, volume.volume_id).items()},
                "lost": [
                    {**each._asdict(), "sha256": each.sha256.hex()} for each in rows.lost(database, volume.volume_id)
                ],
            }
            volume.require_present()
            volume.replace_small(FILE, (json.dumps(content, indent=0) + "\n").encode())
        except PacsError as error:
            log.warning("when it was last read could not be noted on the volume at %s: %s", volume.location, error)


def take_in(database: Database, volumes: Iterable[Volume]) -> int:
    """Take the notes of volumes in of which the index knows no reading; return how many copies were taken out of
    service by it. The repair looks at each of them. What cannot be read is as if there were none."""
    taken_out = 0
    for volume in volumes:
        try:
            if rows.is_known(database, volume.volume_id):
                continue
            volume.require_present()
            found = _read(volume)
        except (PacsError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("the notes of the last reading on %s cannot be used: %s", volume.location, error)
            continue
        if found is None:
            continue
        folders, lost = found
        taken_out += rows.take_in(database, volume.volume_id, folders, lost)
        log.info("on %s %d folders had been read, %d copies were lost", volume.location, len(folders), len(lost))
    return taken_out


def _read(volume: Volume) -> tuple[dict[str, datetime], list[LostCopy]] | None:
    if not volume.has(FILE):
        return None
    content: dict[str, Any] = json.loads(volume.read_small(FILE))
    if content["format"] != FORMAT:
        raise ValueError(f"its format is {content['format']}")
    now = clock.now()
    dates = {str(folder): datetime.fromisoformat(at) for folder, at in content["folders"].items()}
    lost = [LostCopy(**{**each, "sha256": bytes.fromhex(each["sha256"])}) for each in content["lost"]]
    for each in lost:
        if each.state not in ("missing", "bad") or ".." in each.path.split("/"):
            raise ValueError("what it says of lost copies is nothing that a scrub writes")
    return {folder: at for folder, at in dates.items() if at <= now}, lost
