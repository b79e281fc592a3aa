"""DICOMweb's part of the conformance statement (PS3.2), from the tables that the service itself works from."""

from __future__ import annotations

from pacs.model.attributes import ATTRIBUTES, SEQUENCES, Level
from pacs.model.rendering import FORMATS, FUNCTIONS
from pacs.model.uids import name_of
from pacs.settings import Settings
from pacs.web import qido
from pacs.web.dicomweb import RETRIEVES, SEARCHES, STORES, WADO_URI
from pacs.web.frames import MEDIA_TYPES
from pacs.web.multipart import HEADERS_SIZE_BYTES_MAX, PARTS_MAX
from pacs.web.service import ROOT


def sections(settings: Settings) -> list[str]:
    """The sections as Markdown."""
    resources = [("search", path, f"level {level.name}") for path, level in SEARCHES.items()]
    resources += [
        ("retrieve", path.replace(":path", ""), answer.__name__.replace("_", " ")) for path, answer in RETRIEVES.items()
    ]
    resources += [("store", path, "POST") for path in STORES]
    lines = [f"| {kind} | `{ROOT}{path}` | {what} |" for kind, path, what in resources]
    known = [f"`{each.keyword}`" for each in ATTRIBUTES] + [f"`{each.keyword}`" for each in SEQUENCES]
    levels = [
        f"| {level.name} | {', '.join(f'`{keyword}`' for keyword in keywords)} |"
        for level, keywords in qido.DEFAULTS.items()
        if level != Level.PATIENT
    ]
    types = [f"| {name_of(uid)} | `{media_type}` |" for uid, media_type in MEDIA_TYPES.items()]
    return [
        "## DICOMweb",
        "Studies Service of PS3.18 10 as origin server, and the URI Service of PS3.18 9 at "
        f"`{WADO_URI}`. Every request needs a token (RFC 6750). Not there: delete, worklist (UPS-RS), non-patient "
        "instances, the study and series as rendered, annotations, ICC profiles, presentation states as renderings.",
        "\n".join(["| service | resource | what |", "|---|---|---|", *lines]),
        f"Searches: a limit of {qido.LIMIT} results unless less or more is asked for, {qido.LIMIT_MAX} at most; "
        "fuzzymatching; lists of UIDs; matching in sequences. Matched and answered: "
        + ", ".join(known)
        + "; with the computed keys of the queries above. Answered whoever asks:",
        "\n".join(["| level | attributes |", "|---|---|", *levels]),
        "Frames as they are stored, or uncompressed as `application/octet-stream`:",
        "\n".join(["| transfer syntax | media type |", "|---|---|", *types]),
        f"Pictures: {', '.join(f'`{each}`' for each in FORMATS)}; window functions {', '.join(FUNCTIONS)}.",
        f"Store: `application/dicom`, or metadata (`application/dicom+json`) and bulk data; {PARTS_MAX} parts and "
        f"{settings.stow_size_bytes_max} bytes a request, {HEADERS_SIZE_BYTES_MAX} bytes of headers a part. Failure "
        "reasons are the statuses of C-STORE.",
    ]
