"""An encoded data set under a new SOP Instance UID, all its other bytes as they are; streamed, nothing decoded."""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Iterable, Iterator
from io import BytesIO

from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_dataset
from pydicom.uid import UID

from pacs.errors import CannotUnderstand

_SOP_INSTANCE_UID = 0x00080018
#: The UID stands among the first elements; what is before it is a few values, and a sequence at most [bytes].
_HEAD_SIZE_BYTES = 1 << 20


def derived_uid(sop_instance_uid: str, sha256: bytes) -> str:
    """The UID for an object that came under another's UID: the same for the same bytes (PS3.5 B.2, RFC 9562 5.5)."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'{sop_instance_uid}/{sha256.hex()}').int}"


def with_sop_instance_uid(pieces: Iterable[bytes], transfer_syntax_uid: str, new_uid: str) -> Iterator[bytes]:
    """The data set in pieces, with another SOP Instance UID. Raise CannotUnderstand if it has none to replace."""
    syntax = UID(transfer_syntax_uid)
    if syntax.is_deflated:
        return _deflated(_replaced(_inflated(pieces), syntax, new_uid))
    return _replaced(iter(pieces), syntax, new_uid)


def _replaced(pieces: Iterator[bytes], syntax: UID, new_uid: str) -> Iterator[bytes]:
    head = b""
    for piece in pieces:
        head += piece
        if len(head) >= _HEAD_SIZE_BYTES:
            break
    element = _find(head, syntax)
    value = new_uid.encode("ascii")
    value += b"\0" * (len(value) % 2)
    length_size = 4 if syntax.is_implicit_VR else 2
    order = "little" if syntax.is_little_endian else "big"
    yield head[: element.value_tell - length_size] + len(value).to_bytes(length_size, order) + value  # type: ignore[arg-type]
    yield head[element.value_tell + element.length :]
    yield from pieces


def _find(head: bytes, syntax: UID) -> RawDataElement:
    try:
        ds = read_dataset(
            BytesIO(head), syntax.is_implicit_VR, syntax.is_little_endian,
            stop_when=lambda tag, _vr, _length: tag > _SOP_INSTANCE_UID,
        )  # fmt: skip
        element = ds.get_item(_SOP_INSTANCE_UID)
    except Exception as error:  # pydicom raises what it likes for bytes that are none
        raise CannotUnderstand(f"The object's first elements cannot be read ({type(error).__name__}).") from error
    if not isinstance(element, RawDataElement):
        raise CannotUnderstand("The object has no SOP Instance UID where it belongs.")
    return element


def _inflated(pieces: Iterable[bytes]) -> Iterator[bytes]:
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    for piece in pieces:
        yield inflate.decompress(piece)
    yield inflate.flush()


def _deflated(pieces: Iterable[bytes]) -> Iterator[bytes]:
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    size = 0
    for piece in pieces:
        compressed = deflate.compress(piece)
        size += len(compressed)
        yield compressed
    rest = deflate.flush()
    yield rest + b"\0" * ((size + len(rest)) % 2)
