"""C-STORE as SCP (PS3.4 B, PS3.7 9.1.1): the bytes go to the archive as they come, the answer tells the truth."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import cast

from pacs import clock
from pacs.archive.store import Announced, Arriving, Store, StoreSession
from pacs.errors import PacsError
from pacs.index.refusals import Refusal, RefusalKind
from pacs.model.uids import name_of
from pacs.net.association import Association, Sink, StoreRequest
from pacs.net.receive_times import ReceiveTimes
from pacs.net.refusals import Refusals
from pacs.net.turnstile import Turnstile

log = logging.getLogger(__name__)

SUCCESS = 0x0000


class Storing:
    """The C-STORE service of one association."""

    def __init__(
        self,
        store: Store,
        assoc: Association,
        refusals: Refusals,
        turnstile: Turnstile,
        times: ReceiveTimes | None = None,
        note_association: Callable[[], None] = lambda: None,
    ) -> None:
        """times: where it is counted how long each object takes. note_association gives the association its row, if it
        has none: the database was away when it began."""
        self._times, self._began_s = times, 0.0
        self.store, self.assoc, self.refusals, self.turnstile = store, assoc, refusals, turnstile
        self._note_association = note_association
        self._session = StoreSession()
        self._arriving: Arriving | None = None
        self._place: object | None = None

    def open_sink(self, request: StoreRequest) -> Sink:
        """Begin to take a request's object in."""
        if self.assoc.key is None:  # else nobody would know who sent what comes now
            self._note_association()
        self._began_s = clock.monotonic_s()
        announced = Announced(
            sop_class_uid=request.sop_class_uid,
            sop_instance_uid=request.sop_instance_uid,
            transfer_syntax_uid=str(request.context.transfer_syntax[0]),
            association_key=self.assoc.key,
            default_character_set=self.assoc.device.default_character_set if self.assoc.device else "",
        )
        self._place = self.turnstile.enter()
        self._arriving = self.store.begin(announced, self._session)
        return self._arriving

    def finish(self, request: StoreRequest, sink: Sink) -> None:
        """Finish a request whose data set has arrived, and answer it."""
        self._arriving = None
        status, comment = self._finish(request, cast(Arriving, sink))
        self.turnstile.leave(self._place)
        if status != SUCCESS:
            self._note(request, status, comment)
        self.assoc.send_store_response(request, status, comment)
        if self._times is not None:
            self._times.note(clock.monotonic_s() - self._began_s, status == SUCCESS)

    def close(self) -> None:
        """The association is over: what was on its way and did not arrive is forgotten."""
        if self._arriving is not None:
            self._arriving.abandon()
            self.turnstile.leave(self._place)

    def _note(self, request: StoreRequest, status: int, reason: str) -> None:
        assoc, device = self.assoc, self.assoc.device
        self.refusals.note(
            Refusal(
                RefusalKind.OBJECT, assoc.calling_ae, assoc.peer, reason, f"0x{status:04X}: {reason}", assoc.called_ae,
                device.name if device else "", (name_of(request.sop_class_uid),), request.sop_instance_uid,
            )
        )  # fmt: skip

    def _finish(self, request: StoreRequest, arriving: Arriving) -> tuple[int, str]:
        try:
            outcome = arriving.finish()
        except PacsError as error:
            log.warning(
                "object refused with 0x%04X: %s",
                error.status,
                error,
                extra={"calling_ae": self.assoc.calling_ae, "sop_class": request.sop_class_uid},
            )
            return error.status, str(error)
        except Exception:
            # Nobody foresaw it, so nobody knows whether another try helps: it failed, and the log says where.
            log.exception("an object was not stored", extra={"calling_ae": self.assoc.calling_ae})
            return PacsError.status, "The archive failed; see its log."
        log.debug("object %s", outcome)
        return SUCCESS, ""
