"""C-ECHO as SCU (PS3.7 9.1.5): does a device answer?"""

from __future__ import annotations

from pynetdicom.dimse_primitives import C_ECHO
from pynetdicom.presentation import build_context

from pacs import clock
from pacs.index.devices import Device
from pacs.model.dataset import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from pacs.net.association import Association, Message, ReleaseRequested
from pacs.net.negotiation import VERIFICATION
from pacs.net.requestor import AssociationRefused, associate, release
from pacs.net.upper_layer import ConnectionLost, ProtocolError
from pacs.settings import Settings


def echo(settings: Settings, device: Device) -> float:
    """Ask a device for an echo; return how long all of it took [s]. Raise AssociationRefused with the reason."""
    began_s = clock.monotonic_s()
    context = build_context(VERIFICATION, [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN])
    assoc = associate(settings, device, [context])
    try:
        status = _exchange(assoc, device)
    finally:
        release(assoc)
    if status != 0x0000:
        raise AssociationRefused(f"{device.name} answers the echo with 0x{status:04X}. Look at its log.")
    return clock.monotonic_s() - began_s


def _exchange(assoc: Association, device: Device) -> int:
    if not assoc.contexts:
        raise AssociationRefused(f"{device.name} takes the association, but serves no C-ECHO. Is it a DICOM device?")
    request = C_ECHO()
    request.MessageID = 1
    request.AffectedSOPClassUID = VERIFICATION
    assoc.send(request, int(assoc.contexts[0].context_id or 0))
    try:
        answer = assoc.receive()
    except (ConnectionLost, ProtocolError, ReleaseRequested) as error:
        raise AssociationRefused(
            f"{device.name} took the association and did not answer the echo: {error}. Look at its log."
        ) from error
    if not isinstance(answer, Message) or not isinstance(answer.primitive, C_ECHO) or answer.primitive.Status is None:
        raise AssociationRefused(f"{device.name} answered something else than the echo. Is it a DICOM device?")
    return int(answer.primitive.Status)
