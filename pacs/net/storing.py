"""C-STORE as SCP (PS3.4 B, PS3.7 9.1.1): the bytes go to the archive as they came, the answer tells the truth."""

from __future__ import annotations

import logging
from typing import Any

from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import PresentationContext

from pacs.archive.store import Arrival, Store
from pacs.errors import CannotUnderstand, PacsError
from pacs.net.association import ArchiveAssociation

log = logging.getLogger(__name__)

SUCCESS = 0x0000


def store_service(store: Store) -> Any:
    """The service that takes objects into `store`."""

    def serve(assoc: ArchiveAssociation, request: C_STORE, context: PresentationContext) -> None:
        response = C_STORE()
        response.MessageIDBeingRespondedTo = request.MessageID
        response.AffectedSOPClassUID = request.AffectedSOPClassUID
        response.AffectedSOPInstanceUID = request.AffectedSOPInstanceUID
        status, comment = _take(store, assoc, request, context)
        response.Status = status
        if comment:
            response.ErrorComment = comment  # type: ignore[assignment]
        assoc.dimse.send_msg(response, int(context.context_id or 0))

    return serve


def _take(
    store: Store, assoc: ArchiveAssociation, request: C_STORE, context: PresentationContext
) -> tuple[int, str | None]:
    try:
        if request.DataSet is None:
            raise CannotUnderstand("The request has no data set.")
        outcome = store.store(
            Arrival(
                dataset=request.DataSet.getbuffer(),
                sop_class_uid=str(request.AffectedSOPClassUID),
                sop_instance_uid=str(request.AffectedSOPInstanceUID),
                transfer_syntax_uid=str(context.transfer_syntax[0]),
                association_key=assoc.association_key,
            )
        )
    except PacsError as error:
        log.warning(
            "object refused with 0x%04X: %s",
            error.status,
            error,
            extra={"calling_ae": assoc.requestor.ae_title, "sop_class": str(request.AffectedSOPClassUID)},
        )
        return error.status, str(error)[:64]  # an LO, PS3.7 Annex C.1
    except Exception:
        # Nobody foresaw it, so nobody knows whether another try helps: it failed, and the log says where.
        log.exception("an object was not stored", extra={"calling_ae": assoc.requestor.ae_title})
        return PacsError.status, "The archive failed; see its log."
    log.debug("object %s", outcome)
    return SUCCESS, None
