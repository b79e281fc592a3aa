"""Asking for associations: where a C-MOVE sends to."""

from __future__ import annotations

import socket
from collections.abc import Collection

from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext, build_role, negotiate_as_requestor

from pacs.errors import TryAgainLater
from pacs.index.devices import Device
from pacs.net.association import Association
from pacs.net.negotiation import APPLICATION_CONTEXT, own_pdu_size, own_user_information, rejection_words, smaller_pdu
from pacs.net.tls import Tls, TlsFailed
from pacs.net.upper_layer import ABORT_BY_USER, ConnectionLost, PduType, ProtocolError, UpperLayer
from pacs.settings import Settings

#: How long a device may take to answer a release [s].
RELEASE_S = 5.0


class AssociationRefused(TryAgainLater):
    """The device does not accept an association. Is it switched on, and does it know this archive's AE title?"""


def associate(
    settings: Settings, device: Device, contexts: list[PresentationContext], scp_classes: Collection[str] = ()
) -> Association:
    """An association with a device in which these contexts are proposed, over TLS if the device is called so.

    Of scp_classes we want to be the SCP (PS3.7 D.3.3.4). Raise AssociationRefused with the reason.
    """
    try:
        connection = socket.create_connection((device.host, device.port), timeout=settings.artim_s)
        if device.tls:
            connection = Tls(settings.tls_folder, "none").connect(connection, device.tls_certificate_sha256)
    except TlsFailed as error:
        raise AssociationRefused(f"{device.name} at {device.host}:{device.port}: {error}.") from error
    except OSError as error:
        raise AssociationRefused(
            f"{device.name} cannot be reached at {device.host}:{device.port}: {error}. Is it switched on?"
        ) from error
    upper_layer = UpperLayer(connection, settings.artim_s)
    try:
        return _negotiate(upper_layer, settings, device, contexts, scp_classes)
    except (ConnectionLost, ProtocolError) as error:
        upper_layer.send_abort(*ABORT_BY_USER)
        upper_layer.close()
        raise AssociationRefused(f"{device.name} does not accept an association: {error}") from error


def _negotiate(
    upper_layer: UpperLayer,
    settings: Settings,
    device: Device,
    contexts: list[PresentationContext],
    scp_classes: Collection[str],
) -> Association:
    for number, context in enumerate(contexts):
        context.context_id = 2 * number + 1
    upper_layer.send(_encode_request(settings, device, contexts, scp_classes))
    header = upper_layer.read_header()
    content = upper_layer.read(header.length)
    if header.type == PduType.ASSOCIATE_RJ:
        upper_layer.close()
        raise AssociationRefused(
            f"{device.name} rejects the association: {rejection_words(*content[1:4])} (result {content[1]}, source "
            f"{content[2]}, reason {content[3]}, PS3.8 Table 9-21). Does it know this archive's AE title?"
        )
    if header.type != PduType.ASSOCIATE_AC:
        raise ProtocolError(f"A PDU of type {header.type} answered an association request.")
    pdu = A_ASSOCIATE_AC()
    try:
        pdu.decode(b"\x02\x00" + len(content).to_bytes(4, "big") + content)
        answer = pdu.to_primitive()
        results = negotiate_as_requestor(contexts, answer.presentation_context_definition_results_list)
    except Exception as error:  # pynetdicom raises what it likes for bytes that are none
        raise ProtocolError(f"The answer to an association request cannot be read ({type(error).__name__}).") from error
    upper_layer.set_timeout(settings.network_timeout_s)
    return Association(
        upper_layer,
        accepted={int(context.context_id or 0): context for context in results if context.result == 0},
        calling_ae=settings.ae_title,
        called_ae=device.ae_title,
        peer=device.host,
        peer_pdu_size_bytes=smaller_pdu(answer.maximum_length_received, device),
        device=device,
    )


def _encode_request(
    settings: Settings, device: Device, contexts: list[PresentationContext], scp_classes: Collection[str]
) -> bytes:
    request = A_ASSOCIATE()
    request.application_context_name = APPLICATION_CONTEXT
    request.calling_ae_title, request.called_ae_title = settings.ae_title, device.ae_title
    request.presentation_context_definition_list = contexts
    roles = [build_role(uid, scu_role=False, scp_role=True) for uid in scp_classes]
    request.user_information = [*own_user_information(own_pdu_size(settings, device)), *roles]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(request)
    return pdu.encode()


def release(assoc: Association) -> None:
    """End an association in good order, or in the order that is left."""
    assoc.upper_layer.set_timeout(RELEASE_S)
    try:
        assoc.upper_layer.send_release_request()
        while assoc.upper_layer.read_header().type != PduType.RELEASE_RP:
            raise ProtocolError("Something else than a release answered a release.")
        assoc.upper_layer.read(4)
    except (ConnectionLost, ProtocolError):
        assoc.upper_layer.send_abort(*ABORT_BY_USER)
    assoc.upper_layer.close()
