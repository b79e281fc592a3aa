"""A selftest from beginning to end: what an earlier one left is removed, the steps are taken, nothing is left.

the selftest's tables made ─▶ on each port: C-ECHO, C-STORE, C-FIND, C-GET ─▶ on one: C-MOVE to itself, commitment
    ─▶ an object stored in the archive's own tables and taken back ─▶ files removed, tables dropped ─▶ looked again
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from pacs import clock
from pacs.archive.selftest import FOLDER, remove_files
from pacs.archive.volumes import Volumes
from pacs.errors import PacsError, SelftestFailed
from pacs.index import selftest as tables
from pacs.index.database import Database
from pacs.index.devices import Device
from pacs.index.locks import only_one
from pacs.index.store import StoredFile
from pacs.model.record import read_record
from pacs.net.selftest import ListeningSocket, noted_sockets
from pacs.net.selftest_steps import Peer, associated, encoded, end_associations, synthetic_study
from pacs.net.tls import own_sha256
from pacs.settings import Settings


@dataclass(frozen=True)
class Step:
    """A step that was taken, and what came of it."""

    name: str
    passed: bool
    message: str
    seconds: float


@dataclass
class Selftest:
    """One selftest of a running node."""

    settings: Settings
    database: Database
    volumes: Volumes
    tell: Callable[[Step], None] = lambda _step: None
    steps: list[Step] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every step that was taken passed."""
        return bool(self.steps) and all(step.passed for step in self.steps)

    def run(self) -> None:
        """Take all steps; after one that fails only what cleans up. Raise AlreadyRunning or DatabaseUnavailable."""
        with only_one(self.database, "selftest"):
            try:
                with contextlib.suppress(SelftestFailed):  # it is among the steps
                    self._take()
            finally:
                self._clean()

    def _take(self) -> None:
        sockets = noted_sockets(self.settings)
        with self._step("beginning") as say:
            say(self._begin(sockets))
        plain_first = sorted(sockets, key=lambda each: each.tls)
        for number, listening in enumerate(plain_first):
            where = f"port {listening.port}{' (TLS)' if listening.tls else ''}"
            study = synthetic_study()
            with self._step(f"association, {where}") as say:
                peer = self._stack.enter_context(associated(self.settings, listening))
                say("accepted")
            self._on(peer, where, study)
            if number == 0:
                self._on_one(peer, study)
            self._stack.close()
        self._try_archive()

    def _on(self, peer: Peer, where: str, study: list[Dataset]) -> None:
        with self._step(f"C-ECHO, {where}") as say:
            say(peer.echo())
        for name, take in (("C-STORE", peer.store), ("C-FIND", peer.find), ("C-GET", peer.get)):
            with self._step(f"{name}, {where}") as say:
                say(take(study))

    def _on_one(self, peer: Peer, study: list[Dataset]) -> None:
        with self._step("C-MOVE to itself") as say:
            say(peer.move(study))
            self._require_arrived(len(study))
        with self._step("storage commitment") as say:
            say(peer.commit(study))

    def _begin(self, sockets: Sequence[ListeningSocket]) -> str:
        if not sockets:
            raise SelftestFailed(
                "No receiver has said where it listens. Is one running? `systemctl status 'pacs-receiver@*'`"
            )
        left = remove_files(self.volumes.all())
        if left:
            raise SelftestFailed(f"What an earlier selftest left cannot be removed: {left[0]}")
        first = min(sockets, key=lambda each: each.tls)
        address = "::1" if first.address == "::1" else "127.0.0.1"
        itself = Device("itself", self.settings.ae_title, address, first.port, tls=first.tls)
        if first.tls:
            itself = replace(itself, tls_certificate_sha256=own_sha256(self.settings.tls_folder))
        tables.make_tables(self.database, itself)
        return "nothing is left of an earlier one"

    def _require_arrived(self, objects: int) -> None:
        """What was sent to itself came in as what was there already, bit by bit."""
        own = Database(tables.conninfo_of(self.settings.conninfo), 2)
        try:
            found = tables.arrived(own)
        finally:
            own.close()
        if found != {"objects": objects, "again": objects, "conflicts": 0}:
            raise SelftestFailed(f"Of {objects} objects that were stored and sent to itself, {found} came.")

    def _try_archive(self) -> None:
        """The archive's own tables take an object; it is taken back before it is committed."""
        with self._step("the archive's own index") as say:
            content = encoded(synthetic_study(1)[0])
            record = read_record(content, ExplicitVRLittleEndian)
            volume = self.volumes.receiving()
            digest = hashlib.sha256(content).digest()
            file = StoredFile(volume.volume_id, f"{FOLDER}/{digest.hex()}", digest, len(content))
            outcome = tables.try_archive(self.database, record, ExplicitVRLittleEndian, file)
            if outcome != "stored":
                raise SelftestFailed(f"An object was not stored there: {outcome}.")
            say("an object was stored there, and taken back")

    def _clean(self) -> None:
        self._stack.close()
        end_associations()
        with contextlib.suppress(SelftestFailed), self._step("delete") as say:
            left = remove_files(self.volumes.all())
            tables.drop_tables(self.database)
            if left:
                raise SelftestFailed(f"Not all could be removed: {left[0]}")
            say("nothing is left of it")

    @contextlib.contextmanager
    def _step(self, name: str) -> Iterator[Callable[[str], None]]:
        """A step; its block is given what to say what it saw with. Raise SelftestFailed if it failed."""
        began_s, said = clock.monotonic_s(), list[str]()
        try:
            yield said.append
        except PacsError as error:
            self._note(name, False, str(error), began_s)
            raise SelftestFailed(str(error)) from error
        except Exception as error:  # pynetdicom and pydicom raise what they like
            self._note(name, False, f"{type(error).__name__}: {error}", began_s)
            raise SelftestFailed(str(error)) from error
        self._note(name, True, " ".join(said), began_s)

    def _note(self, name: str, passed: bool, message: str, began_s: float) -> None:
        step = Step(name, passed, message, round(clock.monotonic_s() - began_s, 3))
        self.steps.append(step)
        self.tell(step)

    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
