"""A selftest's associations, as the receivers serve them: the same code, over the selftest's own tables and folder.

A selftest calls from this machine only, with an AE title of its own, while its tables are there. It needs no device of
that name, no user and, where certificates are demanded, none but the archive's own: whoever got in by it would find
nothing of the archive's.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from pacs.archive.commit import Verifier
from pacs.archive.retrieve import Retrieve
from pacs.archive.room import StateRoom
from pacs.archive.selftest import SelftestStore
from pacs.archive.volumes import Volumes
from pacs.errors import PacsError
from pacs.index import selftest as tables
from pacs.index import store as rows
from pacs.index.database import Database
from pacs.index.selftest import AE_TITLE
from pacs.net.association import Association
from pacs.net.reporting import Reporting
from pacs.settings import Settings

log = logging.getLogger(__name__)

_SOCKETS_FILE = "dicom-sockets.json"
_STOP_S = 2.0


@dataclass(frozen=True)
class ListeningSocket:
    """A port that the receivers listen on."""

    address: str
    port: int
    tls: bool


def note_sockets(settings: Settings, plain: list[socket.socket], tls: list[socket.socket]) -> None:
    """Note where the receivers listen, for the selftest. That it cannot be noted keeps no receiver from its work."""
    found = [
        asdict(ListeningSocket(str(each.getsockname()[0]), int(each.getsockname()[1]), each in tls))
        for each in (*plain, *tls)
        if each.family in (socket.AF_INET, socket.AF_INET6)
    ]
    path = _path(settings)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(found))
        temporary.rename(path)
    except OSError as error:
        log.warning("it cannot be noted where the receivers listen: %s", error)


def noted_sockets(settings: Settings) -> list[ListeningSocket]:
    """Where the receivers said that they listen; nowhere if none has run."""
    try:
        return [ListeningSocket(**each) for each in json.loads(_path(settings).read_bytes())]
    except (OSError, ValueError, TypeError):
        return []


def _path(settings: Settings) -> Path:
    return settings.runtime_folder / _SOCKETS_FILE


class SelftestServing:
    """What serves one association of a selftest; closed at its end."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        volumes: Volumes,
        room: StateRoom,
        assoc: Association,
        session_key: int,
    ) -> None:
        """database: the archive's, beside whose tables the selftest's are."""
        self.assoc = assoc
        # What it sends to itself comes in as a selftest, too.
        self.settings, self.as_itself = settings, settings.model_copy(update={"ae_title": AE_TITLE})
        self.database = Database(tables.conninfo_of(database.conninfo), 4, settings.database_timeout_s)
        try:
            self.store = SelftestStore(self.database, volumes, settings.object_size_bytes_max, room)
            self.retrieve = Retrieve(self.database, volumes)
            self.reporting = Reporting(settings, self.database, Verifier(self.database, volumes))
            assoc.key = rows.open_association(self.database, session_key, assoc.calling_ae, assoc.peer)
            self.reporting.start()
        except BaseException:
            self.database.close()
            raise

    def close(self) -> None:
        """The association is over."""
        try:
            self.reporting.stop(_STOP_S)
            if self.assoc.key is not None:
                rows.close_association(self.database, self.assoc.key)
        except PacsError as error:
            log.info("the end of a selftest's association was not noted: %s", error)  # its tables are gone by now
        finally:
            self.database.close()
