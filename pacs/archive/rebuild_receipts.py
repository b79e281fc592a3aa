"""Taking the receipts in: those of the data directory and of every volume, each fact once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from pacs.errors import CannotUnderstand
from pacs.index import rebuild as rows
from pacs.index.database import Database
from pacs.storage.journal import segments_on
from pacs.storage.kinds import Volume
from pacs.storage.receipts import FOLDER, Line, Receipts
from pacs.storage.segments import lines_of

_LINES_MAX = 2000

_Association = tuple[int, str, str, str, datetime, datetime | None, str]


class ReceiptLoader:
    """Loads receipts into a rebuild's tables."""

    def __init__(self) -> None:
        self._associations: dict[tuple[str, ...], _Association] = {}

    def run(self, database: Database, receipts: Receipts, volumes: list[Volume]) -> None:
        """Load every receipt there is. In one transaction: all of them or none."""
        with rows.loading_receipts(database) as connection:
            waiting: list[Line] = []
            for line in _lines(receipts, volumes):
                waiting.append(line)
                if len(waiting) == _LINES_MAX:
                    self._load(connection, waiting)
                    waiting = []
            self._load(connection, waiting)
            rows.copy_associations(connection, self._associations.values())

    def _load(self, connection: Any, lines: list[Line]) -> None:
        stored, again = list[tuple[Any, ...]](), list[tuple[Any, ...]]()
        for line in lines:
            try:
                key, study = self._key(line["from"]), line.get("study", "")
                stored += [(bytes.fromhex(each[0]), each[1], study, each[2], key) for each in line.get("stored", ())]
                again += [(bytes.fromhex(each[0]), *each[1:], key) for each in line.get("again", ())]
            except (KeyError, ValueError, TypeError, IndexError) as error:
                raise CannotUnderstand(
                    "A receipt cannot be read. It was written by another version, or its disk is damaged: boot the "
                    "image that wrote it, or take its segment away (docs/operate/rebuild.md)."
                ) from error
        rows.copy_receipts(connection, stored)
        rows.copy_again(connection, again)

    def _key(self, sender: Line | None) -> int | None:
        if sender is None:
            return None
        named = (sender["ae"], sender["peer"], sender["user"], sender["opened"])
        known = self._associations.get(named)
        closed = datetime.fromisoformat(sender["closed"]) if sender["closed"] else None
        if known is None:
            opened = datetime.fromisoformat(sender["opened"])
            key = len(self._associations) + 1
            known = (key, *named[:3], opened, closed, sender["character_set"])
            self._associations[named] = known
        elif closed is not None and known[5] is None:
            self._associations[named] = (*known[:5], closed, known[6])
        return known[0]


def _lines(receipts: Receipts, volumes: list[Volume]) -> Iterator[Line]:
    """The lines of all copies of each segment; of copies of which one goes on from the other, the longer one's."""
    ours = {segment.name: segment for segment in receipts.segments()}
    theirs = [(volume, set(segments_on(volume, FOLDER))) for volume in volumes]
    for name in sorted(ours.keys() | {name for _volume, names in theirs for name in names}):
        kept = [ours[name].read_bytes()] if name in ours else []
        for volume, names in theirs:
            content = volume.read_small(f"{FOLDER}/{name}") if name in names else b""
            if not any(each.startswith(content) for each in kept):
                kept = [each for each in kept if not content.startswith(each)] + [content]
        for content in kept:
            yield from lines_of(content)
