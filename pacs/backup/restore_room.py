"""What a restore needs, and whether it is there: looked at before anything is touched."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pacs.backup.cluster_backup import labels_of
from pacs.backup.pgbackrest import PgBackRest, configuration, write_configuration
from pacs.backup.restore_source import Choice, Source
from pacs.errors import NotFound, RestoreError
from pacs.index import restores
from pacs.index.database import Database
from pacs.model.sizes import format_size
from pacs.settings import Settings

if TYPE_CHECKING:
    from pacs.backup.restore import Server

#: Beside the files of the backup: the log that is read after it, and what grew meanwhile [bytes].
_LOG_BYTES = 256 << 20
_GROWTH = 0.1


@dataclass(frozen=True)
class Needed:
    """What is restored of the database: pgBackRest's label, and its size [bytes]."""

    label: str
    database_bytes: int

    @property
    def state_bytes(self) -> int:
        """How much must be free where the state is: the empty cluster stays beside it until the end."""
        return round(self.database_bytes * (1 + _GROWTH)) + _LOG_BYTES


def needed(source: Source, choice: Choice) -> Needed:
    """What a restore needs. Raise NotFound if no backup goes back so far, BackupError if none can be read."""
    with tempfile.TemporaryDirectory(prefix="pacs-restore-") as folder:
        config = Path(folder) / "pgbackrest.conf"
        text = configuration(source.repository, source.keyring, Path(folder), None, Path(folder))
        write_configuration(config, text)
        known = labels_of(PgBackRest(config))
    label = choice.point.label if choice.point else None
    usable = [each for each in known if each.label == label] or [
        each for each in known if each.finished_at <= choice.restored_to
    ]
    if not usable:
        raise NotFound(
            f"The repository has no backup of the database from before {choice.restored_to:%Y-%m-%d %H:%M} UTC. Take a "
            "later point or time, or another repository."
        )
    return Needed(usable[-1].label, usable[-1].size_bytes)


def require_room(settings: Settings, need: Needed) -> None:
    """Raise RestoreError if the database does not fit. Objects need no room to be served: they come back behind."""
    folder = next(each for each in (settings.data, *settings.data.parents) if each.exists())
    free = shutil.disk_usage(folder).free
    if free < need.state_bytes:
        raise RestoreError(
            f"The disk of {settings.data} is too small: the database needs {format_size(need.state_bytes)}, "
            f"{format_size(free)} are free. Nothing was touched. Enlarge that disk, and run it again."
        )


def require_empty(settings: Settings, server: Server) -> None:
    """Raise RestoreError if there is an archive here already. Nothing else may be at work here."""
    if not server.cluster.exists():
        return
    server.start()
    with server.as_service():
        database = Database(settings.conninfo)
        try:
            held = restores.holds_objects(database)
        finally:
            database.close()
    if held:
        raise RestoreError("This appliance holds images. A restore goes onto an empty one only. Nothing was touched.")
