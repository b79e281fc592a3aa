"""The conformance statement (PS3.2), from the tables that negotiation and the services themselves work from.

`make reference` writes docs/reference/conformance.md with the defaults; `pacs receiver conformance` prints it with an
instance's own settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pacs.archive import commit
from pacs.errors import CannotUnderstand, DataSetDoesNotMatch, PacsError, TryAgainLater
from pacs.index import computed
from pacs.model import codec, text, uids
from pacs.model.attributes import ATTRIBUTES, SEQUENCES, Level
from pacs.net import commitment, finding, identifier, negotiation, retrieving, suboperations
from pacs.net.association import COMMAND_SIZE_BYTES_MAX, IDENTIFIER_SIZE_BYTES_MAX
from pacs.net.identity import KNOWN_TYPES, IdentityType
from pacs.net.listener import CONNECTIONS_BESIDE_MAX
from pacs.net.negotiation import (
    FIND_EXTENDED,
    MESSAGES,
    REJECTED_CALLED_AE,
    REJECTED_CALLING_AE,
    REJECTED_CONGESTION,
    REJECTED_NO_REASON,
    REJECTED_TOO_MANY,
    RETRIEVE_EXTENDED,
    STORAGE_COMMITMENT,
)
from pacs.net.tls import CIPHER_SUITES
from pacs.net.upper_layer import ABORT_BY_USER, ABORT_INVALID_PDU, ABORT_UNEXPECTED_PDU, PDU_SIZE_BYTES_MAX
from pacs.settings import Settings

#: The appliance's ports (roles/pacs/defaults/main.yml): plain, and TLS.
PORTS, TLS_PORTS = (104, 11112), (2762,)
_MESSAGE_SYNTAXES = negotiation.MESSAGE_SYNTAXES


def statement(settings: Settings, more: Sequence[str] = ()) -> str:
    """The whole statement as Markdown. more: sections of what is not DIMSE (pacs/web/conformance.py)."""
    parts = [
        "# DICOM conformance statement",
        "Generated from the running code by `make reference`; an instance prints its own with `pacs receiver "
        "conformance`. Nothing here is written by hand.",
        *_application_entity(settings),
        *_services(),
        *_storage(),
        *_transfer_syntaxes(settings),
        *_associations(settings),
        *_queries(),
        *_statuses(),
        *_commitment(settings),
        *more,
        *_character_sets(),
        *_security(settings),
    ]
    return "\n\n".join(parts) + "\n"


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _application_entity(settings: Settings) -> list[str]:
    rows = [
        ("AE title", f"`{settings.ae_title}` (`ae_title`); of a device, also those of `pacs device --called-as`"),
        ("ports, plain", ", ".join(map(str, PORTS))),
        ("ports, TLS", ", ".join(map(str, TLS_PORTS))),
        ("application context", f"`{negotiation.APPLICATION_CONTEXT}`"),
        ("Implementation Class UID", f"`{uids.IMPLEMENTATION_CLASS_UID}`"),
        ("Implementation Version Name", f"`{uids.IMPLEMENTATION_VERSION_NAME}`"),
    ]
    return ["## Application entity", "One application entity offers all services.", _table(("", "value"), rows)]


def _services() -> list[str]:
    rows = []
    for message, classes in MESSAGES.items():
        for uid in classes:
            role = "SCP; reports as SCP over its own associations too" if uid == STORAGE_COMMITMENT else "SCP"
            if uid == negotiation.VERIFICATION:
                role = "SCP; SCU by `pacs device echo`"
            rows.append((uids.name_of(uid), f"`{uid}`", message, role))
    syntaxes = ", ".join(uids.name_of(uid) for uid in _MESSAGE_SYNTAXES)
    return [
        "## Services beside storage",
        f"Transfer syntaxes, best first: {syntaxes}.",
        _table(("SOP class", "UID", "message", "role"), rows),
    ]


def _storage() -> list[str]:
    classes = uids.storage_classes()
    return [
        "## Storage (C-STORE)",
        "SCP for every storage SOP class of PS3.6, and for every abstract syntax that PS3.6 does not list (private and "
        "later ones). SCU for what it holds: over the requestor's association by C-GET, over a new one by C-MOVE. "
        "Level 2 (full): the data set is kept as it arrived, byte by byte, private attributes included; nothing is "
        "coerced. An object with a SOP Instance UID that is here already: the same content is dropped, other content "
        "is kept beside the first, and a person decides.",
        _table(("SOP class", "UID"), [(uids.name_of(uid), f"`{uid}`") for uid in classes]),
    ]


def _transfer_syntaxes(settings: Settings) -> list[str]:
    rows = [(uids.name_of(uid), f"`{uid}`") for uid in uids.TRANSFER_SYNTAXES]
    rows += [("(setting extra_transfer_syntaxes)", f"`{uid}`") for uid in settings.extra_transfer_syntaxes]
    native = ", ".join(uids.name_of(uid) for uid in codec.NATIVE)
    lossless = ", ".join(uids.name_of(uid) for uid in codec.LOSSLESS_TARGETS)
    return [
        "## Transfer syntaxes of storage",
        "As SCP each of these is taken, in this order of preference: those of the device (`pacs device "
        "--transfer-syntax`), the one most stored for the SOP class, Explicit VR Little Endian, the others. As SCU an "
        f"object is sent as it is stored wherever the receiver takes that; else decoded ({native}), or compressed "
        f"without loss ({lossless}); else its sub-operation fails. docs/reference/retrieve.md says more.",
        _table(("transfer syntax", "UID"), rows),
    ]


def _associations(settings: Settings) -> list[str]:
    limits = [
        ("associations at once", settings.associations_max, "`associations_max`"),
        ("associations of one device", "no limit of its own", "`pacs device --associations-max`"),
        (
            "connections of one address, to one receiver",
            settings.connections_per_address_max,
            "`connections_per_address_max`",
        ),
        ("connections in all, to one receiver", settings.associations_max + CONNECTIONS_BESIDE_MAX, ""),
        ("largest PDU that is asked for [bytes]", settings.pdu_size_bytes_max, "`pdu_size_bytes_max`, `pacs device`"),
        ("largest association PDU [bytes]", PDU_SIZE_BYTES_MAX, ""),
        ("largest command set [bytes]", COMMAND_SIZE_BYTES_MAX, ""),
        ("largest identifier or other data set of a message [bytes]", IDENTIFIER_SIZE_BYTES_MAX, ""),
        ("largest object [bytes]", settings.object_size_bytes_max, "`object_size_bytes_max`"),
        ("operations at once, invoked and performed (asynchronous operations window)", "1 and 1", ""),
        ("until an association is asked for, TLS included (ARTIM) [s]", f"{settings.artim_s:g}", "`artim_s`"),
        ("for all of a PDU, sent or read [s]", f"{settings.network_timeout_s:g}", "`network_timeout_s`"),
        ("between two messages [s]", f"{settings.idle_s:g}", "`idle_timeout_s`"),
    ]
    rejections = [
        (REJECTED_CALLED_AE, "another called AE title"),
        (REJECTED_CALLING_AE, "a device that is not known, or at another address"),
        (REJECTED_NO_REASON, "TLS certificate, or user identity, that is not the device's or user's"),
        (REJECTED_CONGESTION, "the database does not answer"),
        (REJECTED_TOO_MANY, "a limit above"),
    ]
    aborts = [
        (ABORT_BY_USER, "a timeout, or the end of the service"),
        (ABORT_UNEXPECTED_PDU, "a PDU or message out of turn"),
        (ABORT_INVALID_PDU, "bytes that are none"),
    ]
    return [
        "## Associations",
        "Known devices only. Every association, context and object that is refused is recorded (`pacs refusal list`).",
        _table(("limit", "value", "setting"), limits),
        _table(
            ("A-ASSOCIATE-RJ", "result, source, reason"), [(why, ", ".join(map(str, code))) for code, why in rejections]
        ),
        _table(("A-ABORT", "source, reason"), [(why, ", ".join(map(str, code))) for code, why in aborts]),
        "Role selection (PS3.7 D.3.3.4): a requestor may take the SCP's role for storage (C-GET). For its reports of "
        "storage commitment this archive, as requestor, asks for the SCP's role; it sends them also to a device that "
        "accepts the context and does not answer the role.",
    ]


def _queries() -> list[str]:
    rows = []
    for level in Level:
        keys = [attribute.keyword for attribute in ATTRIBUTES if attribute.level == level]
        keys += [
            f"{sequence.keyword} ({', '.join(attribute.keyword for attribute in sequence.attributes)})"
            for sequence in SEQUENCES
            if sequence.level == level
        ]
        rows.append((level.name, ", ".join(keys)))
    rows.append(("computed when asked for", ", ".join(sorted({*computed.KEYWORDS, "RetrieveAETitle"}))))
    extended = [
        (service, name, "yes" if is_done else "no")
        for service, table in (("C-FIND", FIND_EXTENDED), ("C-MOVE, C-GET", RETRIEVE_EXTENDED))
        for name, is_done in table.items()
    ]
    return [
        "## Queries",
        "docs/reference/query.md says how the keys are matched.",
        _table(("level", "keys"), rows),
        "SOP Class Extended Negotiation (PS3.4 C.5):",
        _table(("service", "behaviour", "done"), extended),
    ]


def _statuses() -> list[str]:
    errors = (CannotUnderstand, DataSetDoesNotMatch, TryAgainLater, PacsError)
    store = [(_hex(0), "Safe: on the disk, and committed to the index.")]
    store += [(_hex(each.status), " ".join((each.__doc__ or "").split())) for each in errors]
    find = [
        (_hex(finding.PENDING), "an answer follows"),
        (_hex(finding.PENDING_WITHOUT_A_KEY), "an answer follows; of a key asked for the index has nothing"),
        (_hex(finding.SUCCESS), "all answers were given"),
        (_hex(finding.CANCELLED), "cancelled"),
        (_hex(identifier.IdentifierError.status), "the identifier does not match the SOP class"),
        (_hex(CannotUnderstand.status), "unable to process"),
        (_hex(TryAgainLater.status), "out of resources"),
    ]
    retrieve = [
        (_hex(suboperations.PENDING), "sub-operations go on"),
        (_hex(suboperations.SUCCESS), "all were sent"),
        (_hex(suboperations.CANCELLED), "cancelled"),
        (_hex(suboperations.SOME_FAILED), "some failed or had warnings; the failed UIDs are listed"),
        (_hex(suboperations.UNABLE_TO_PERFORM), "all failed, or no association with the destination"),
        (_hex(retrieving.DESTINATION_UNKNOWN), "the destination is no known device (C-MOVE)"),
        (_hex(identifier.IdentifierError.status), "the identifier does not match the SOP class"),
        (_hex(retrieving.UNABLE_TO_CALCULATE), "out of resources"),
        (_hex(retrieving.UNABLE_TO_PROCESS), "unable to process"),
    ]
    heads = ("status", "meaning")
    return [
        "## Statuses", "### C-STORE", _table(heads, store), "### C-FIND", _table(heads, find), "### C-MOVE, C-GET",
        _table(heads, retrieve),
    ]  # fmt: skip


def _commitment(settings: Settings) -> list[str]:
    action = [
        (_hex(commitment.SUCCESS), "the request is written down"),
        (_hex(commitment.NO_SUCH_INSTANCE), f"another instance than `{commitment.STORAGE_COMMITMENT_INSTANCE}`"),
        (_hex(commitment.NO_SUCH_ACTION), f"another action type than {commitment.REQUEST_STORAGE_COMMITMENT}"),
        (_hex(commitment.INVALID_ARGUMENT), "no transaction UID, no references, or none that can be read"),
        (_hex(commitment.RESOURCE_LIMITATION), "out of resources: ask again"),
    ]
    reasons = [
        (_hex(commit.NO_SUCH_OBJECT), "no such object"),
        (_hex(commit.CLASS_INSTANCE_CONFLICT), "the object is of another SOP class"),
        (_hex(commit.PROCESSING_FAILURE), "no copy of it could be read with the SHA-256 that it was stored with"),
        (_hex(commit.DUPLICATE_TRANSACTION_UID), "the transaction UID was used for other objects before"),
    ]
    return [
        "## Storage commitment",
        "Push model, as SCP. An object is committed to after it was read again from its disk, past the cache, and its "
        "SHA-256 compared. The report (N-EVENT-REPORT, event types "
        f"{commitment.COMMITTED_ALL} and {commitment.COMMITTED_NOT_ALL}) goes over the association that asked while it "
        "is open, else over a new one to the device; a device that is away is tried again for "
        f"{settings.commitment_retry_s / 86400:g} days. The same request again is answered again.",
        _table(("N-ACTION status", "meaning"), action),
        _table(("failure reason", "meaning"), reasons),
    ]


def _character_sets() -> list[str]:
    terms = text.CHARACTER_SETS
    return [
        "## Character sets",
        "Understood in objects and in queries, by themselves or with code extensions: "
        + ", ".join(f"`{term}`" if term else "none (ISO_IR 6)" for term in terms)
        + ".",
    ]


def _security(settings: Settings) -> list[str]:
    kinds = [
        (kind.value, kind.name.replace("_", " ").lower(), "looked at" if kind in KNOWN_TYPES else "ignored")
        for kind in IdentityType
    ]
    return [
        "## Security",
        "TLS: BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile (PS3.15 B.12), as server and client. TLS "
        "1.3 and 1.2, nothing older; no renegotiation, no compression, no session tickets. Suites of TLS 1.2: "
        + ", ".join(f"`{suite}`" for suite in CIPHER_SUITES)
        + f". Client certificates: {settings.tls_client_certificate} (`tls_client_certificate`); one that a device is "
        "bound to is demanded of it, calling or called.",
        f"User identity (PS3.7 D.3.3.7): {settings.user_identity} (`user_identity`). A passcode is refused without "
        "TLS. A positive response is made for an identity that was looked at and accepted.",
        _table(("type", "identity", ""), kinds),
    ]


def _hex(status: int) -> str:
    return f"`{status:04X}`"
