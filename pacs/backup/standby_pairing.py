"""Two nodes are made twins: one is the archive, the other its standby.

    standby   offer     its pairing text ─┐
    archive                               └▶ pair: key let in, volumes and slot made; its own pairing text ─┐
    standby   follow: key let in, way to the database tried, cluster copied, following ◀────────────────────┘

Each text holds a public key, a host key and an address: nothing secret. After a promotion the two know one another:
the old archive follows the new one without any text.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from pacs import __version__, clock
from pacs.backup.standby_files import StandbyFiles, Twin, require_no_standby
from pacs.backup.standby_tunnel import Tunnel, archive_conninfo, tunnel_folder
from pacs.backup.standby_volumes import offered_volumes
from pacs.errors import StandbyError, UsageError
from pacs.index import restores
from pacs.index import standby as rows
from pacs.index import volumes as volume_rows
from pacs.index.database import Database
from pacs.index.server import server_place
from pacs.settings import Settings
from pacs.storage import durable
from pacs.storage.lineage import MARK_FILE, LineageFiles
from pacs.storage.sftp_client import host_key_of
from pacs.storage.volume import read_identity

log = logging.getLogger(__name__)

#: How long the archive may take to let go of what was kept for us before [s].
_PATIENCE_S = 30.0
#: Of a recovery that the archive went through itself, nothing holds for a standby. What stands last counts.
_FOLLOW_ON = """
# pacs: a standby follows whatever timeline the archive is on, to no target.
restore_command = ''
recovery_target = ''
recovery_target_lsn = ''
recovery_target_name = ''
recovery_target_time = ''
recovery_target_xid = ''
recovery_target_timeline = 'latest'
"""


class Server(Protocol):
    """The database of the instance that becomes a standby, with no service at work on it."""

    @property
    def cluster(self) -> Path:
        """Where the database's cluster is."""
        ...

    @property
    def user(self) -> str | None:
        """Whose the cluster is, if we are root."""
        ...

    @property
    def binaries(self) -> Path:
        """PostgreSQL's programs."""
        ...

    def as_service(self) -> AbstractContextManager[None]:
        """Act as the service's user in the block."""
        ...

    def start(self) -> None:
        """Start the database, and nothing else."""
        ...

    def stop(self) -> None:
        """Stop the database."""
        ...


def describe(settings: Settings, database: Database, user: str, host: str, port: int, name: str = "") -> Twin:
    """This node as its twin is to know it. Its SSH server is asked for its key. Raise VolumeMissing if it is silent."""
    files, data = StandbyFiles(settings.data), settings.data
    host_key, _fingerprint = host_key_of(f"sftp://{user}@{host}:{port}/x", {})
    place = server_place(settings.conninfo)
    database_socket = f"{Path(place.socket_folder).resolve()}/.s.PGSQL.{place.port}"
    files.note_database(database_socket)
    return Twin(
        name or socket.gethostname().split(".")[0][:20].lower() or "node", read_identity(data).appliance_id, user, host,
        port, host_key, files.public_key(), database_socket,
        __version__, offered_volumes(database),
    )  # fmt: skip


def pair(settings: Settings, database: Database, text: str) -> Twin:
    """On the archive: have the node of a pairing text as the standby from now on. Return it.

    Nothing is shipped before the standby has let us in. Raise UsageError, StandbyError.
    """
    data = settings.data
    require_no_standby(data)
    LineageFiles(data).require_not_fenced()
    files, twin = StandbyFiles(data), Twin.of(text)
    before = files.twin()
    _require_fit(data, twin)
    if before is not None and before[0].appliance_id != twin.appliance_id:
        raise StandbyError(
            f"{before[0].name} is the twin of this node already. Give it up first: `pacs standby leave`."
        )
    files.keep(twin, "standby")
    rows.make_slot(settings.conninfo)
    known = {each.volume_id for each in volume_rows.list_volumes(database, with_retired=True)}
    with volume_rows.adding(database) as connection:
        for volume in twin.volumes:
            if volume.volume_id in known:
                volume_rows.take_up(connection, twin.row(volume))
            else:
                volume_rows.insert_volume(connection, twin.row(volume))
    return twin


def leave(settings: Settings, database: Database, is_lost: bool = False) -> int:
    """On the archive: have no standby any more. Return how many objects were on it only, and are missing now.

    Raise StandbyError while there are any, unless is_lost: then they are noted as missing, and a sending heals them. Or
    while the standby takes the log. A command that was ended is given again.
    """
    data = settings.data
    require_no_standby(data)
    listed = volume_rows.list_volumes(database, with_retired=True)
    known = [each.volume_id for each in listed if each.tier == volume_rows.STANDBY_TIER]
    left = rows.only_at_standby(database, known)
    if left and not is_lost:
        raise StandbyError(
            f"{left} objects are nowhere but at the standby. They come back by themselves while it is on: "
            "`pacs restore status`. If its disks are lost: `pacs standby leave --lost`."
        )
    rows.drop_slot(settings.conninfo)
    StandbyFiles(data).forget()  # first: the worker makes the rows of a standby that is known
    receiving = [each for each in rows.local_volumes(listed) if each.tier == 1 and each.state == "active"][:1]
    with database.transaction() as connection:
        restores.replace_volumes(connection, known, receiving)
    return left


class Following:
    """Makes this node the standby of another. No service is at work on it meanwhile."""

    def __init__(self, settings: Settings, server: Server, tell: Callable[[str], None]) -> None:
        self.settings, self.data, self.server, self.tell = settings, settings.data, server, tell
        self.files = StandbyFiles(settings.data)

    def run(self, text: str | None) -> Twin:
        """Follow the node of a pairing text; without one the twin that took over. Once more copies the database anew.

        What this node's database had is gone afterwards. Raise StandbyError and others, before that, if it may not be.
        """
        if self._must_be_empty(text):
            self.server.start()
        with self.server.as_service():
            twin = self._archive(text)
            self.files.keep(twin, "archive")
        with Tunnel(self.data, self.settings, twin):
            self._require_same_server()
            with self.server.as_service():
                self.files.put_following("copying")  # from now on nothing else starts here
            self.tell(f"the database of {twin.name}")
            self.server.stop()
            self._keep_log_there()
            self._copy()
        self._put_in_place()
        with self.server.as_service():
            self.files.put_following("follows")
        return twin

    def _archive(self, text: str | None) -> Twin:
        """Whom to follow. What this node has is looked at: an archive is not given up by a slip."""
        known, is_following = self.files.twin(), self.files.following() is not None
        if text is None:
            if known is None:
                raise UsageError("Follow whom? Give the pairing text that `pacs standby pair` printed on the archive.")
            if not is_following and LineageFiles(self.data).fenced() is None:
                raise StandbyError(
                    f"This node is the archive: {known[0].name} has not taken over. First `pacs standby promote` there."
                )
            return known[0]
        twin = Twin.of(text)
        _require_fit(self.data, twin)
        if self._must_be_empty(text):
            self._require_empty()
        return twin

    def _must_be_empty(self, text: str | None) -> bool:
        """Whether what is in this node's database would be lost: not that of a standby, or of one that was fenced."""
        is_over = self.files.following() is not None or LineageFiles(self.data).fenced() is not None
        return text is not None and not is_over

    def _require_empty(self) -> None:
        """Raise StandbyError if there is an object here; else its volumes forget whose they were."""
        database = Database(self.settings.conninfo)
        try:
            if restores.holds_objects(database):
                raise StandbyError("This node holds objects. A standby is an empty appliance: take another one.")
            local = rows.local_volumes(volume_rows.list_volumes(database))
        finally:
            database.close()
        for volume in local:
            for path in (MARK_FILE, "journal", "receipts", "audit"):
                _remove(Path(volume.location) / path)

    def _require_same_server(self) -> None:
        found, ours = rows.server_version(archive_conninfo(self.settings)) // 10000, _major(self.server.binaries)
        if found != ours:
            raise StandbyError(f"The archive has PostgreSQL {found}, this node {ours}. Give both the same version.")

    def _keep_log_there(self) -> None:
        """Have the archive keep its log for us from now on, whatever it kept before: that may be too old."""
        ends_s = clock.monotonic_s() + _PATIENCE_S
        while True:
            try:
                rows.make_slot_anew(archive_conninfo(self.settings))
                return
            except StandbyError:  # our own server was stopped a moment ago, which the archive has yet to notice
                if clock.monotonic_s() > ends_s:
                    raise
                time.sleep(0.5)

    def _copy(self) -> None:
        target = _beside(self.server.cluster)
        shutil.rmtree(target, ignore_errors=True)
        words = ["pg_basebackup", "-h", str(tunnel_folder(self.settings)), "-p", "5432", "-U", "pacs", "-D",
                 str(target), "-X", "stream", "-S", rows.SLOT, "-R", "--checkpoint=fast", "--no-password"]  # fmt: skip
        self._run(words)
        with (target / "postgresql.auto.conf").open("a", encoding="utf-8") as settings:
            settings.write(_FOLLOW_ON)

    def _run(self, words: list[str]) -> None:
        done = subprocess.run(
            [str(self.server.binaries / words[0]), *words[1:]], capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL, user=self.server.user, cwd=self.server.cluster.parent,
        )  # fmt: skip
        if done.returncode != 0:
            raise StandbyError(f"{words[0]}: {' '.join(done.stderr.split())[-300:]}. Give the command again.")

    def _put_in_place(self) -> None:
        """Whatever moment it is killed at, one of the two is there; the command given again copies anew."""
        cluster, target = self.server.cluster, _beside(self.server.cluster)
        replaced = cluster.with_name("replaced")
        self.server.stop()
        if cluster.exists():
            shutil.rmtree(replaced, ignore_errors=True)
            cluster.rename(replaced)
        target.rename(cluster)
        durable.fsync_folder(cluster.parent)
        shutil.rmtree(replaced, ignore_errors=True)


def _require_fit(data: Path, twin: Twin) -> None:
    if twin.appliance_id == read_identity(data).appliance_id:
        raise UsageError("This is this node's own pairing text. Give it to the other node, and its text to this one.")
    if twin.version != __version__:
        raise StandbyError(
            f"{twin.name} has version {twin.version}, this node {__version__}. Bring both to the same version first."
        )


def _major(binaries: Path) -> int:
    done = subprocess.run([str(binaries / "postgres"), "--version"], capture_output=True, text=True, check=False)
    return int(done.stdout.split()[2].split(".")[0])


def _beside(cluster: Path) -> Path:
    return cluster.with_name("following")


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
