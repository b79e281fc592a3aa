"""C-GET and C-MOVE as SCP (PS3.4 C.4.2, C.4.3): sub-operations counted, failures named, cancel obeyed."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

from pynetdicom.presentation import PresentationContext

from pacs.archive.outgoing import Transcoding
from pacs.archive.retrieve import Retrieve, Wanted
from pacs.errors import PacsError, TryAgainLater
from pacs.index.database import Database
from pacs.index.devices import Device, device_by_ae_title
from pacs.model.attributes import UNIQUE_KEY, Level
from pacs.net.association import Association, Message
from pacs.net.identifier import IdentifierError, read_identifier, text_of
from pacs.net.negotiation import PATIENT_ROOTS
from pacs.net.proposing import batches
from pacs.net.requestor import AssociationRefused, associate, release
from pacs.net.sending import Prepared, Sender
from pacs.net.suboperations import CANCELLED, COUNT_MAX, Cancelled, Exchange, RequestorGone, SubOperations
from pacs.net.upper_layer import ABORT_BY_USER, ConnectionLost, TimedOut
from pacs.settings import Settings

log = logging.getLogger(__name__)

# PS3.4 Table C.4-2, Table C.4-3
UNABLE_TO_CALCULATE, DESTINATION_UNKNOWN, UNABLE_TO_PROCESS = 0xA701, 0xA801, 0xC000
#: How often in a row a destination may lose an association without having answered on it.
_LOSSES_MAX = 3


def get_service(retrieve: Retrieve, transcoding: Transcoding, settings: Settings) -> Any:
    """The service that sends objects back over the association that asked."""

    def serve(assoc: Association, message: Message) -> None:
        exchange = Exchange(assoc, message, settings.retrieve_progress_s)
        try:
            objects = wanted_objects(retrieve, message)
            changes = retrieve.give_changes(objects)
        except PacsError as error:
            exchange.refuse(status_of(error), str(error))
            return
        counts = SubOperations(len(objects), on_counted=_audited(assoc, objects))
        preferred = assoc.device.transfer_syntaxes if assoc.device else ()
        sender = Sender(
            assoc, retrieve, transcoding, changes, preferred=preferred,
            # Between two objects only: in the middle of one nothing else can be said on its association.
            while_preparing=lambda: exchange.tell_progress(counts),
        )  # fmt: skip
        status = _run(lambda: _send_each(exchange, counts, sender, objects))
        exchange.finish(counts.final_status() if status is None else status, counts)

    return serve


def move_service(
    retrieve: Retrieve,
    transcoding: Transcoding,
    database: Database,
    settings: Settings,
) -> Any:
    """The service that sends objects to a known device, over an association of its own."""

    def serve(assoc: Association, message: Message) -> None:
        exchange = Exchange(assoc, message, settings.retrieve_progress_s)
        title = str(message.primitive.MoveDestination or "").strip()
        try:
            destination = device_by_ae_title(database, title)
            if destination is None:
                log.warning("C-MOVE to %r: it is not a known device. Add it: `pacs device add`.", title)
                exchange.refuse(DESTINATION_UNKNOWN, "The move destination is not a known device.")
                return
            objects = wanted_objects(retrieve, message)
            move = _Move(exchange, retrieve, transcoding, settings, destination, objects)
        except PacsError as error:
            exchange.refuse(status_of(error), str(error))
            return
        try:
            status = _run(move.run)
            exchange.finish(move.counts.final_status() if status is None else status, move.counts)
        finally:
            move.close()

    return serve


def _audited(
    assoc: Association, objects: Sequence[Wanted], destination: Device | None = None
) -> Callable[[Wanted, bool], None]:
    """Have the audit log know who is given which studies, before the first object goes; return what is to be told of
    each object."""
    if assoc.trail is None:
        return lambda _wanted, _went: None
    return assoc.trail.sending(objects, destination)


def _run(send: Callable[[], None]) -> int | None:
    """Run the sub-operations; return the status of what was cancelled. What ended the requestor's association goes on
    to who serves it."""
    try:
        send()
    except Cancelled:
        return CANCELLED
    except RequestorGone as gone:
        raise gone.error from gone
    return None


def status_of(error: PacsError) -> int:
    """The status of a retrieve that was not begun (PS3.4 Table C.4-2, Table C.4-3)."""
    if isinstance(error, IdentifierError):
        return error.status
    return UNABLE_TO_CALCULATE if isinstance(error, TryAgainLater) else UNABLE_TO_PROCESS


def wanted_objects(retrieve: Retrieve, message: Message) -> list[Wanted]:
    """What a retrieve's identifier asks for. Raise IdentifierError if it lacks its level's unique key (C.4.2.2.1).

    The keys of the levels above need not be there: a unique key alone says which it is, with relational retrieve
    negotiated or without. Those that are there must fit.
    """
    identifier, level = read_identifier(message)
    keys = {
        at: [value.strip() for value in text_of(identifier, UNIQUE_KEY[at].keyword).split("\\") if value.strip()]
        for at in Level
        if at <= level
    }
    if not keys[level]:
        raise IdentifierError(f"A retrieve at level {level.name} needs {UNIQUE_KEY[level].keyword}.")
    wanted = {UNIQUE_KEY[at].keyword: values for at, values in keys.items() if values}
    issuer = text_of(identifier, "IssuerOfPatientID").strip()
    if message.context.abstract_syntax not in PATIENT_ROOTS or level != Level.PATIENT:
        wanted.pop("PatientID", None)  # below the patient level it adds nothing that the study's UID does not say
    elif issuer:
        wanted["IssuerOfPatientID"] = [issuer]
    return retrieve.wanted(wanted)


def _send_each(exchange: Exchange, counts: SubOperations, sender: Sender, objects: Sequence[Wanted]) -> None:
    """Send objects and count them. Raise Cancelled between two of them; ConnectionLost when the association is over:
    then the first that is not counted is the one that was on its way."""
    ahead: Prepared | None = None
    try:
        for number, wanted in enumerate(objects):
            exchange.require_wanted()
            prepared, ahead = ahead or sender.prepare(wanted), None
            assert prepared is not None
            with contextlib.closing(prepared):
                if prepared.error is not None:
                    counts.fail([wanted], str(prepared.error))
                    exchange.tell_progress(counts)
                    continue
                sender.send(prepared, number % COUNT_MAX + 1)
                if number + 1 < len(objects):  # read while the peer is still at work on this one
                    ahead = sender.prepare(objects[number + 1], is_due=False)
                counts.count(wanted, sender.receive_status(number % COUNT_MAX + 1))
            exchange.tell_progress(counts)
    finally:
        if ahead is not None:
            ahead.close()


class _Move:
    """The sub-operations of one C-MOVE."""

    def __init__(
        self,
        exchange: Exchange,
        retrieve: Retrieve,
        transcoding: Transcoding,
        settings: Settings,
        destination: Device,
        objects: Sequence[Wanted],
    ) -> None:
        self.exchange, self.retrieve, self.transcoding, self.settings = exchange, retrieve, transcoding, settings
        self.destination, self.objects = destination, objects
        self.changes = retrieve.give_changes(objects)
        self.counts = SubOperations(len(objects), on_counted=_audited(exchange.assoc, objects, destination))
        self._losses = 0
        self._store_assoc: Association | None = None

    def run(self) -> None:
        """Send all objects. Raise Cancelled or RequestorGone."""
        for batch, contexts in batches(self.objects, self.destination.transfer_syntaxes):
            objects: Sequence[Wanted] = batch
            while objects:
                self.close()
                objects = self._send_on_new_association(objects, contexts)

    def close(self) -> None:
        """Release the association that is open. Not before the requestor has its answer: it may take a while."""
        if self._store_assoc is not None:
            release(self._store_assoc)
            self._store_assoc = None

    def _send_on_new_association(
        self, objects: Sequence[Wanted], contexts: list[PresentationContext]
    ) -> Sequence[Wanted]:
        """Send objects over an association; return those that a new one may still be tried for.

        A destination that ends the association over one object may take the others.
        """
        before = self.counts.remaining
        try:
            store_assoc = associate(self.settings, self.destination, contexts)
        except AssociationRefused as error:
            log.warning("C-MOVE: %s", error)
            self.counts.fail(objects, "The move destination does not accept an association.")
            return ()
        try:
            store_assoc.upper_layer.watch(self._look_round)
            _send_each(self.exchange, self.counts, self._sender(store_assoc), objects)
        except ConnectionLost as error:
            _cut_off(store_assoc)
            return self._after_loss(objects, before - self.counts.remaining, error)
        except BaseException:
            _cut_off(store_assoc)
            raise
        self._store_assoc = store_assoc
        return ()

    def _after_loss(self, objects: Sequence[Wanted], counted: int, error: ConnectionLost) -> Sequence[Wanted]:
        log.warning("C-MOVE to %s: %s", self.destination.name, error)
        self._losses = 1 if counted else self._losses + 1
        left, reason = objects[counted:], "The association with the move destination was lost."
        if isinstance(error, TimedOut) or self._losses >= _LOSSES_MAX:
            self.counts.fail(left, reason)
            return ()
        self.counts.fail(left[:1], reason)
        return left[1:]

    def _sender(self, store_assoc: Association) -> Sender:
        originator = (self.exchange.assoc.calling_ae, int(self.exchange.request.MessageID or 0))
        preferred = self.destination.transfer_syntaxes
        return Sender(
            store_assoc, self.retrieve, self.transcoding, self.changes, originator, preferred, self._look_round
        )

    def _look_round(self) -> None:
        """While something takes long: has the requestor cancelled, or gone? If not it is told how far we are."""
        self.exchange.require_wanted()
        self.exchange.tell_progress(self.counts)


def _cut_off(assoc: Association) -> None:
    assoc.upper_layer.send_abort(*ABORT_BY_USER)
    assoc.upper_layer.connection.close()
