"""Storage commitment's other half: the objects are read again, and the device gets its report.

A request stands in the index until its device has acknowledged the report. It goes over the association that asked
while that is open, else over a new one; a device that is away is tried again for `commitment_retry_s`. A request
belongs to whoever moved its next try on: when they die, it is due again, here or in another receiver.
"""

from __future__ import annotations

import logging
import queue
import threading

from pynetdicom.presentation import PresentationContext, build_context

from pacs import clock
from pacs.archive.commit import DUPLICATE_TRANSACTION_UID, Verifier
from pacs.errors import NotFound, PacsError, TryAgainLater
from pacs.index import commitments as rows
from pacs.index.commitments import Commitment, Reference
from pacs.index.database import Database
from pacs.index.devices import device_by_ae_title
from pacs.model.dataset import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from pacs.net.association import Association, Message, ReleaseRequested
from pacs.net.commitment import make_report
from pacs.net.negotiation import STORAGE_COMMITMENT
from pacs.net.outbox import Outbox, Outgoing
from pacs.net.requestor import AssociationRefused, associate, release
from pacs.settings import Settings
from pacs.storage import outbound
from pacs.storage.lineage import LineageFiles

log = logging.getLogger(__name__)

#: How long a request is nobody else's [s]. Renewed while its objects are read.
LEASE_S = 120.0
#: How long a device may take to acknowledge over its own association before a new one is tried [s].
_ANSWER_S = 30.0
#: How long the receiver that took a request has it before others look [s].
_HEAD_START_S = 20.0
#: Objects that were read this long ago are read again before a report [s].
_FRESH_S = 24 * 3600.0
_LOOK_EVERY_S = 10.0
_DELAY_FIRST_S, _DELAY_MOST_S = 30.0, 900.0
_THREADS = 2


class NotAcknowledged(TryAgainLater):
    """The device did not acknowledge the report. Look at its log."""


class Reporting:
    """Answers requests for storage commitment, on threads of its own."""

    def __init__(self, settings: Settings, database: Database, verifier: Verifier) -> None:
        self.settings, self.database, self.verifier = settings, database, verifier
        self._fence = LineageFiles(settings.data)
        self._accepted: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._followed: dict[int, tuple[Outbox, PresentationContext]] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin."""
        for number in range(_THREADS):
            thread = threading.Thread(target=self._run, name=f"commitment-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self, patience_s: float) -> None:
        """Begin nothing more. What is cut off is done by the next receiver."""
        self._stopping.set()
        for _thread in self._threads:
            self._accepted.put(None)
        ends = clock.monotonic_s() + patience_s
        for thread in self._threads:
            thread.join(max(0.0, ends - clock.monotonic_s()))

    def accept(
        self, assoc: Association, context: PresentationContext, transaction_uid: str, referenced: list[Reference]
    ) -> None:
        """Write a request down; when this returns it is on the disk. Raise DatabaseUnavailable; Fenced, as what is
        written down on a node that is handed over may not come to the other one."""
        self._fence.require_not_fenced()
        key = rows.accept(
            self.database, transaction_uid, assoc.calling_ae, assoc.peer, referenced, others_s=_HEAD_START_S
        )
        if assoc.outbox is None:
            assoc.outbox = Outbox()
        assoc.outbox.expect()
        self._unfollow(key)  # the device may ask again before the first was answered
        with self._lock:
            self._followed[key] = (assoc.outbox, context)
        log.info("storage commitment asked for", extra={"calling_ae": assoc.calling_ae, "objects": len(referenced)})
        self._accepted.put(key)

    def _run(self) -> None:
        housekeeping_at = clock.monotonic_s()
        while not self._stopping.is_set():
            try:
                worked = self._turn()
                if clock.monotonic_s() > housekeeping_at:
                    housekeeping_at = clock.monotonic_s() + 3600
                    rows.forget_reported(self.database, self.settings.commitment_keep_s)
                if worked:
                    continue
            except PacsError as error:
                log.warning("storage commitment waits: %s", error)
                self._stopping.wait(_LOOK_EVERY_S)
            except Exception:
                log.exception("storage commitment failed unforeseen")
                self._stopping.wait(_LOOK_EVERY_S)

    def _turn(self) -> bool:
        """One request, if there is one; else wait for one. Whether there was."""
        commitment = rows.claim(self.database, LEASE_S) if self._accepted.empty() else None
        if commitment is None:
            try:
                key = self._accepted.get(timeout=_LOOK_EVERY_S)
            except queue.Empty:
                return False
            if key is None:
                return False
            try:
                commitment = rows.claim(self.database, LEASE_S, key)
            finally:
                if commitment is None:  # gone, or the database is: whoever has it next uses a new association
                    self._unfollow(key)
            if commitment is None:
                return False
        self._answer(commitment, self._followed_by(commitment.key))
        return True

    def _followed_by(self, key: int) -> tuple[Outbox, PresentationContext] | None:
        with self._lock:
            return self._followed.pop(key, None)

    def _unfollow(self, key: int) -> None:
        """The association that asked is free to end: its request is answered otherwise."""
        followed = self._followed_by(key)
        if followed is not None:
            followed[0].put(None)

    def _answer(self, commitment: Commitment, followed: tuple[Outbox, PresentationContext] | None) -> None:
        try:
            reasons = self._reasons(commitment)
            if followed is not None:
                outbox, context = followed
                followed = None
                report = make_report(
                    commitment.transaction_uid, commitment.referenced, reasons, self.settings.ae_title,
                    context.transfer_syntax[0],
                )  # fmt: skip
                rows.hold(self.database, commitment.key, _ANSWER_S)
                context_id = int(context.context_id or 0)
                if outbox.put(Outgoing(report, context_id, lambda status: self._on_answer(commitment, status))):
                    return
            self._report_anew(commitment, reasons)
        except PacsError as error:
            self._postpone(commitment, error)
        finally:
            if followed is not None:
                followed[0].put(None)

    def _reasons(self, commitment: Commitment) -> list[int]:
        if commitment.is_duplicate:
            return [DUPLICATE_TRANSACTION_UID] * len(commitment.referenced)
        if commitment.reasons is not None and commitment.verified_age_s < _FRESH_S:
            return commitment.reasons
        held_at = clock.monotonic_s()

        def on_progress() -> None:
            nonlocal held_at
            if clock.monotonic_s() - held_at > LEASE_S / 4:
                rows.hold(self.database, commitment.key, LEASE_S)
                held_at = clock.monotonic_s()

        reasons = self.verifier.reasons(commitment.referenced, on_progress)
        rows.note_verified(self.database, commitment.key, reasons)
        return reasons

    def _on_answer(self, commitment: Commitment, status: int | None) -> None:
        """Called by the association's thread, which must not be held up long."""
        try:
            if status is not None and _is_acknowledged(status):
                self._note_reported(commitment)
            elif status is None:  # the device hung up, as most do: over a new association, at once
                self._accepted.put(commitment.key)
            else:
                self._postpone(commitment, _refusal(status))
        except PacsError as error:
            log.warning("storage commitment waits: %s", error)  # due again when its lease is over

    def _report_anew(self, commitment: Commitment, reasons: list[int]) -> None:
        self._fence.require_not_fenced()  # the node that took over reports
        if outbound.is_held(self.settings.data):
            raise TryAgainLater("Nothing is sent since the promotion of this node: `pacs standby release`.")
        device = device_by_ae_title(self.database, commitment.calling_ae)
        if device is None:
            raise NotFound(
                f"AE title {commitment.calling_ae} belongs to no device, so the report has no address. "
                "Make it known: `pacs device add`."
            )
        context = build_context(STORAGE_COMMITMENT, [EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN])
        try:
            # We ask for the association and are the SCP: that takes role selection (PS3.4 J.3, PS3.7 D.3.3.4).
            assoc = associate(self.settings, device, [context], scp_classes=(STORAGE_COMMITMENT,))
        except AssociationRefused as error:
            rows.postpone_device(self.database, commitment.calling_ae, str(error), _delay_s(commitment.attempts))
            raise
        try:
            status = self._send(assoc, commitment, reasons)
        finally:
            release(assoc)
        if not _is_acknowledged(status):
            raise _refusal(status)
        self._note_reported(commitment)

    def _send(self, assoc: Association, commitment: Commitment, reasons: list[int]) -> int:
        if not assoc.contexts:
            raise NotAcknowledged("The device takes no reports of storage commitment. Switch that on at the device.")
        context = assoc.contexts[0]
        report = make_report(
            commitment.transaction_uid, commitment.referenced, reasons, self.settings.ae_title,
            context.transfer_syntax[0],
        )  # fmt: skip
        report.MessageID = 1
        assoc.send(report, int(context.context_id or 0))
        try:
            message = assoc.receive()
        except ReleaseRequested:
            raise NotAcknowledged("The device hung up before it answered the report. Look at its log.") from None
        assert isinstance(message, Message)
        answer = message.primitive
        if answer.msg_type != "N-EVENT-REPORT" or answer.MessageIDBeingRespondedTo != 1 or answer.Status is None:
            raise NotAcknowledged("The device answered something else than the report. Ask its maker.")
        return int(answer.Status)

    def _note_reported(self, commitment: Commitment) -> None:
        rows.note_reported(self.database, commitment.key)
        log.info("storage commitment reported", extra={"calling_ae": commitment.calling_ae})

    def _postpone(self, commitment: Commitment, error: PacsError) -> None:
        given_up = rows.postpone(
            self.database, commitment.key, str(error), _delay_s(commitment.attempts), self.settings.commitment_retry_s
        )
        log.log(
            logging.ERROR if given_up else logging.WARNING,
            "storage commitment %s: %s",
            "given up" if given_up else "not reported yet",
            error,
            extra={"calling_ae": commitment.calling_ae},
        )


def _delay_s(attempts: int) -> float:
    return float(min(_DELAY_FIRST_S * 2 ** min(attempts, 16), _DELAY_MOST_S))


def _is_acknowledged(status: int) -> bool:
    return status == 0 or status >> 12 == 0xB or status in (0x0001, 0x0107, 0x0116)  # success and warnings, PS3.7 C


def _refusal(status: int) -> NotAcknowledged:
    return NotAcknowledged(f"The device answered the report with status 0x{status:04X}. Look at its log.")
