"""Writes the metadata of studies that have settled, behind the receivers: whoever opens one finds it made."""

from __future__ import annotations

import logging
import threading

from pacs.archive.metadata import Metadata
from pacs.errors import PacsError
from pacs.index import metadata as rows
from pacs.index.recalls import FAR_TIER

log = logging.getLogger(__name__)


class MetadataWriter:
    """Writes the metadata of what has settled since the mark. For one thread."""

    def __init__(self, metadata: Metadata, settle_s: float, stop: threading.Event) -> None:
        self.metadata, self.settle_s, self.stop = metadata, settle_s, stop
        #: Study → the last of its objects that is in its metadata: those that wait for others to settle.
        self._done: dict[str, int] = {}

    def run(self) -> int:
        """Write what has settled; return how many studies. The mark passes what is behind the first that has not."""
        database, count = self.metadata.retrieve.database, 0
        with database.transaction() as connection:
            mark = rows.mark(connection)
            studies = rows.studies_since(connection, mark, self.settle_s)
        waiting: int | None = None
        for study in studies:
            uid = study["study_instance_uid"]
            if self.stop.is_set():
                return count
            if not study["is_settled"]:
                waiting = study["first_key"] if waiting is None else waiting
            elif self._done.get(uid, 0) < study["last_key"]:
                count += self._write(uid)
                self._done[uid] = study["last_key"]
        passed = max((study["last_key"] for study in studies), default=mark) if waiting is None else waiting - 1
        if passed > mark:
            with database.transaction() as connection:
                rows.move_mark(connection, passed)
            self._done = {uid: key for uid, key in self._done.items() if key > passed}
        return count

    def _write(self, study_instance_uid: str) -> int:
        try:
            wanted = self.metadata.retrieve.wanted({"StudyInstanceUID": [study_instance_uid]})
            if any(not each.copies or each.copies[0].tier >= FAR_TIER for each in wanted):
                return 0  # nothing is fetched from far away for what nobody asked for
            self.metadata.of_study(study_instance_uid)
        except PacsError as error:  # it is made when it is asked for
            log.warning("a settled study has no metadata yet: %s", error)
            return 0
        return 1
