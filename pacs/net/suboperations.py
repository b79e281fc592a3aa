"""What a retrieve's requestor is told: sub-operations counted, failures named (PS3.4 C.4.2.1, C.4.3.1)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO

from pydicom.dataset import Dataset

from pacs import clock
from pacs.archive.retrieve import Wanted
from pacs.net.association import Association, Message, ReleaseRequested
from pacs.net.identifier import encode_identifier
from pacs.net.upper_layer import ConnectionLost, ProtocolError

log = logging.getLogger(__name__)

# PS3.4 Table C.4-2, Table C.4-3
SUCCESS, PENDING, CANCELLED, SOME_FAILED, UNABLE_TO_PERFORM = 0x0000, 0xFF00, 0xFE00, 0xB000, 0xA702
#: C-STORE statuses that are warnings beside 0xBxxx (PS3.7 C.4).
_WARNINGS = frozenset([0x0001, 0x0107, 0x0116])
#: The largest number that a count of sub-operations can say (VR US).
COUNT_MAX = 0xFFFF
_UI_SIZE_BYTES_MAX = 0xFFFE
_FAILED_SOP_INSTANCE_UID_LIST = 0x00080058


class Cancelled(Exception):
    """The requestor has cancelled the retrieve."""


class RequestorGone(Exception):
    """The association of who asked is over, whatever the one to a destination does."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass
class SubOperations:
    """The counts of a retrieve, what failed and why."""

    remaining: int
    completed: int = 0
    failed: int = 0
    warning: int = 0
    failed_uids: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    #: Told of each object, and whether it went.
    on_counted: Callable[[Wanted, bool], None] = lambda _wanted, _went: None

    def count(self, wanted: Wanted, status: int) -> None:
        """Count a sub-operation by its answer."""
        if status == SUCCESS:
            self.remaining -= 1
            self.completed += 1
            self.on_counted(wanted, True)
        elif status >> 12 == 0xB or status in _WARNINGS:
            self.remaining -= 1
            self.warning += 1
            self.on_counted(wanted, True)
            self.reasons[f"The receiver warned with 0x{status:04X}."] += 1
        else:
            self.fail([wanted], f"The receiver answered 0x{status:04X}.")

    def fail(self, objects: Sequence[Wanted], reason: str) -> None:
        """Count objects that were not sent, or whose answer never came."""
        self.remaining -= len(objects)
        self.failed += len(objects)
        self.failed_uids += [wanted.sop_instance_uid for wanted in objects]
        self.reasons[reason] += len(objects)
        for wanted in objects:
            self.on_counted(wanted, False)

    def final_status(self) -> int:
        """The status of the last response (PS3.4 C.4.2.1.5, C.4.3.1.4)."""
        if self.failed and not self.completed and not self.warning:
            return UNABLE_TO_PERFORM
        return SOME_FAILED if self.failed or self.warning else SUCCESS

    def comment(self) -> str:
        """The commonest reason; empty if all is well."""
        return self.reasons.most_common(1)[0][0] if self.reasons else ""


class Exchange:
    """The responses of one C-GET or C-MOVE."""

    def __init__(self, assoc: Association, message: Message, progress_s: float) -> None:
        self.assoc, self.request, self.context = assoc, message.primitive, message.context
        self.progress_s = progress_s
        self._told_at = float("-inf")

    def require_wanted(self) -> None:
        """Raise Cancelled if the requestor has cancelled, RequestorGone if it is gone."""
        try:
            is_cancelled = self.assoc.is_cancelled(int(self.request.MessageID))
        except (ConnectionLost, ProtocolError, ReleaseRequested) as error:
            raise RequestorGone(error) from error
        if is_cancelled:
            raise Cancelled

    def tell_progress(self, counts: SubOperations) -> None:
        """Send a pending response, as the Standard leaves to us (PS3.4 C.4.2.3.1): the first at once, then one every
        progress_s. One for each object would be a third of the messages. Raise RequestorGone."""
        if counts.remaining and clock.monotonic_s() - self._told_at >= self.progress_s:
            self._told_at = clock.monotonic_s()
            try:
                self._respond(PENDING, counts)
            except ConnectionLost as error:
                raise RequestorGone(error) from error

    def refuse(self, status: int, comment: str) -> None:
        """Send the only response, of a retrieve that was not begun."""
        log.warning("%s refused with 0x%04X: %s", self.request.msg_type, status, comment, extra=self._whose())
        self._respond(status, None, comment)

    def finish(self, status: int, counts: SubOperations) -> None:
        """Send the last response, and log what went wrong."""
        for reason, number in counts.reasons.items():
            log.warning("%s: %d objects: %s", self.request.msg_type, number, reason, extra=self._whose())
        self._respond(status, counts, counts.comment())

    def _whose(self) -> dict[str, str]:
        return {"calling_ae": self.assoc.calling_ae, "peer": self.assoc.peer}

    def _respond(self, status: int, counts: SubOperations | None = None, comment: str = "") -> None:
        """The remaining count stands in pending and cancelled ones only (PS3.7 9.1.3.1.6); the failed UIDs in those
        that are neither pending nor successful (PS3.4 C.4.2.1.4.2)."""
        response = type(self.request)()
        response.MessageIDBeingRespondedTo = self.request.MessageID
        response.AffectedSOPClassUID = self.request.AffectedSOPClassUID
        response.Status = status
        if comment:
            response.ErrorComment = comment[:64]
        if counts is not None:
            if status in (PENDING, CANCELLED):
                response.NumberOfRemainingSuboperations = min(counts.remaining, COUNT_MAX)
            response.NumberOfCompletedSuboperations = min(counts.completed, COUNT_MAX)
            response.NumberOfFailedSuboperations = min(counts.failed, COUNT_MAX)
            response.NumberOfWarningSuboperations = min(counts.warning, COUNT_MAX)
            if status not in (PENDING, SUCCESS):
                response.Identifier = BytesIO(encode_identifier(failed_list(counts.failed_uids), self.context))
        self.assoc.send(response, int(self.context.context_id or 0))


def failed_list(uids: Sequence[str]) -> Dataset:
    """The identifier that names what failed. A list that is too long for a UI's header is UN (PS3.5 6.2.2)."""
    ds = Dataset()
    value = "\\".join(uids).encode("ascii")
    if len(value) > _UI_SIZE_BYTES_MAX:
        ds.add_new(_FAILED_SOP_INSTANCE_UID_LIST, "UN", value + b"\0" * (len(value) % 2))
    else:
        ds.FailedSOPInstanceUIDList = list(uids)
    return ds
