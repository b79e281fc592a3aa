"""What a requestor is told of a retrieve: counts, the last status, the list of what failed."""

from __future__ import annotations

from io import BytesIO

import pytest
from pynetdicom import build_context
from pynetdicom.dsutils import decode

from pacs.archive.retrieve import Wanted
from pacs.net.identifier import encode_identifier
from pacs.net.suboperations import SubOperations, failed_list

MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
OBJECTS = [Wanted(number, f"1.2.{number}", "1.2.840.10008.5.1.4.1.1.2", "1.2", 1, ()) for number in range(4)]


@pytest.mark.parametrize(
    ("answers", "status", "counts"),
    [
        ((0, 0, 0, 0), 0x0000, (4, 0, 0)),
        ((0, 0xB000, 0x0107, 0xB007), 0xB000, (1, 0, 3)),
        ((0, 0xA700, 0xC000, 0x0110), 0xB000, (1, 3, 0)),
        ((0xB000, 0xA700, 0xA900, 0x0122), 0xB000, (0, 3, 1)),
        ((0xA700, 0xA700, 0xA900, 0xFE00), 0xA702, (0, 4, 0)),
        ((), 0x0000, (0, 0, 0)),
    ],
)
def test_each_answer_counts_as_what_it_is(answers: tuple[int, ...], status: int, counts: tuple[int, int, int]) -> None:
    made = SubOperations(len(answers))
    for wanted, answer in zip(OBJECTS, answers, strict=False):
        made.count(wanted, answer)
    assert made.final_status() == status
    assert (made.completed, made.failed, made.warning, made.remaining) == (*counts, 0)
    assert len(made.failed_uids) == made.failed
    assert bool(made.comment()) == (status != 0x0000)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
@pytest.mark.parametrize("number", [0, 1, 2, 3000])
def test_a_list_of_any_length_is_encoded(syntax: str, number: int) -> None:
    uids = [f"1.2.826.0.1.3680043.8.498.12345678901234567890{each:04d}" for each in range(number)]
    context = build_context(MOVE, syntax)
    encoded = encode_identifier(failed_list(uids), context)
    found = decode(BytesIO(encoded), syntax == "1.2.840.10008.1.2", True)[0x00080058].value
    if isinstance(found, bytes):
        found = found.rstrip(b"\0").decode().split("\\")
    assert ([found] if isinstance(found, str) and found else list(found or [])) == uids
