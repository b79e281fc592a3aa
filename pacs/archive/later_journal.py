"""A journal that knows more than the index: the index was put back to an earlier moment.

The longest copy becomes ours. Volumes that it adds are made known before files are looked at; all else that it says
beyond ours is done when the files have their rows: each change by itself, so that one that cannot be done keeps none of
the others from it. What a person has to do again is told.
"""

from __future__ import annotations

import logging
from typing import Any

from pacs.archive import replay
from pacs.archive.rebuild_sources import bring_up_to_date
from pacs.archive.replay import Journalled
from pacs.archive.volumes import Volumes
from pacs.errors import PacsError
from pacs.index import devices, tiers
from pacs.index import lineage as rows
from pacs.index import replay as replay_rows
from pacs.index import volumes as volume_rows
from pacs.index.database import Connection, Database
from pacs.storage.journal import Journal, copy_on, reconciled
from pacs.storage.segments import lines_of

log = logging.getLogger(__name__)

Line = dict[str, Any]


class LaterJournal:
    """What the volumes' copies of the journal say beyond ours."""

    def __init__(self, database: Database, journal: Journal, volumes: Volumes, problems: list[str]) -> None:
        """What cannot be done is added to problems, in words."""
        self.database, self.journal, self.volumes, self.problems = database, journal, volumes, problems
        self._lines: list[Line] = []
        self._journalled = Journalled(replay.Standing(), ())

    def adopt(self) -> None:
        """Take the longest copy for ours, and make the volumes known that it adds.

        What was adopted and not applied yet is found again after a kill: in the index, not in the journal, so all
        changes since the index's moment are looked at; doing one again changes nothing.
        """
        ours = {path.name: path.read_bytes() for path in self.journal.segments()}
        copies = {"the data directory": ours}
        for volume in self.volumes.all():
            try:
                copies[volume.location] = copy_on(volume)
            except PacsError as error:
                self.problems.append(f"The journal's copy on {volume.location} cannot be read: {error}")
        try:
            segments, _words = reconciled(copies)
            bring_up_to_date(self.journal.folder.parent, segments)
            self._journalled = replay.read(line for name in sorted(segments) for line in lines_of(segments[name]))
        except PacsError as error:
            self.problems.append(f"The journal is left as it is here: {error}")
            return
        self._lines = [line for name in sorted(segments) for line in lines_of(segments[name])]
        for line in self._lines:
            if line["what"] == "volume add":
                self._do(line, self._add_volume)

    def apply(self) -> int:
        """Do what the journal says and the index does not. Return how many changes were looked at."""
        for line in self._lines:
            if line["what"] != "volume add":
                self._do(line, self._apply)
        for line in self._journalled.in_order:
            self._do(line, self._decide)
        return len(self._lines)

    def _do(self, line: Line, change: Any) -> None:
        try:
            with self.database.transaction() as connection:
                change(connection, line)
        except Exception as error:  # what is odd about one keeps none of the others from being done
            log.exception("a change of the journal could not be done again")
            self.problems.append(f"{line['what']} of {line['at']} could not be done again: {type(error).__name__}.")

    def _add_volume(self, connection: Connection, line: Line) -> None:
        known, since = self._journalled.standing.volumes.get(line["volume_id"], (None, None))
        if known is not None and known.state != "retired":
            volume_rows.insert_volume(connection, known)
            if since is not None:
                volume_rows.set_known_since(connection, known.volume_id, since)

    def _apply(self, connection: Connection, line: Line) -> None:
        what, standing = line["what"], self._journalled.standing
        if what.startswith("device "):
            rows.forget_named(connection, "device", line["name"])
            if line["name"] in standing.devices:
                devices.insert_devices(connection, [standing.devices[line["name"]]])
        elif what.startswith("tier rule "):
            rows.forget_named(connection, "tier_rule", line["name"])
            if line["name"] in standing.rules:
                tiers.put_rule(connection, *standing.rules[line["name"]])
        elif what.startswith("study "):
            self._pin(connection, line["study_instance_uid"])
        elif what == "refusal dismiss":
            replay_rows.put_dismissed(connection, [{**line, "at": line["at"]}])
        elif what in ("volume drain", "volume undrain", "volume retire"):
            self._change_volume(connection, line)

    def _pin(self, connection: Connection, uid: str) -> None:
        key = tiers.study_key_of(connection, uid)
        tiers.unpin(connection, key)
        if uid in self._journalled.standing.pins:
            tiers.pin(connection, key, *self._journalled.standing.pins[uid])

    def _change_volume(self, connection: Connection, line: Line) -> None:
        known, _since = self._journalled.standing.volumes.get(line["volume_id"], (None, None))
        if known is None:  # of before a restore
            return
        if known.state == "retired":
            left = volume_rows.holdings(connection, known.volume_id)
            if left.copies:
                volume_rows.set_state(connection, known.volume_id, "draining")
                self.problems.append(
                    f"Volume {known.name} was retired. Its copies are elsewhere by now: retire it again."
                )
                return
        volume_rows.set_state(connection, known.volume_id, known.state)

    def _decide(self, connection: Connection, line: Line) -> None:
        conflict = replay_rows.find_conflict(connection, line)
        if conflict is None:
            self.problems.append(
                f"A decision about a conflict ({line['kind']}) found none: look at `pacs conflict list`."
            )
            return
        new_uid = line.get("new_sop_instance_uid")
        was_begun_only = new_uid is not None and not replay_rows.has_object(connection, new_uid)
        if conflict["resolved_at"] is None and not was_begun_only:
            replay_rows.decide(connection, conflict, line["resolution"], line["at"])
