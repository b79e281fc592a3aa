"""What transcoding may take: no object that is too large, and only so many at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from pacs.archive.outgoing import Transcoding, open_outgoing
from pacs.archive.retrieve import Retrieve, Wanted
from pacs.archive.store import Arrival
from pacs.cli.instance import Instance
from pacs.errors import CannotUnderstand
from pacs.model import codec
from tests.synthetic import ct_study
from tests.unit.model.encoding import EXPLICIT, IMPLICIT

MADE = ct_study(63, 1, 64, 64)[0]
JPEG_LS = codec.LOSSLESS_TARGETS[0]


@pytest.fixture
def stored(instance: Instance) -> Iterator[tuple[Retrieve, Wanted]]:
    """An object, and what finds it."""
    arrival = Arrival(MADE.dataset, MADE.sop_class_uid, MADE.sop_instance_uid, EXPLICIT, None)
    assert instance.store().store(arrival) == "stored"
    retrieve = instance.retrieve()
    yield retrieve, retrieve.wanted({"SOPInstanceUID": [MADE.sop_instance_uid]})[0]


@pytest.mark.parametrize("target", [EXPLICIT, IMPLICIT, JPEG_LS])
def test_the_size_is_that_of_the_pieces(stored: tuple[Retrieve, Wanted], target: str) -> None:
    outgoing = open_outgoing(*stored, target, Transcoding(1 << 20))
    content = b"".join(map(bytes, outgoing.pieces))
    outgoing.close()
    assert len(content) == outgoing.size_bytes
    assert (content == MADE.dataset) == (target == EXPLICIT)


def test_what_is_too_large_is_not_transcoded_but_re_encoded(stored: tuple[Retrieve, Wanted]) -> None:
    tight = Transcoding(64 * 64 * 2 - 1)
    with pytest.raises(CannotUnderstand, match="transcode_size_bytes_max"):
        open_outgoing(*stored, JPEG_LS, tight)
    for target in (EXPLICIT, IMPLICIT):
        open_outgoing(*stored, target, tight).close()


def test_pixels_that_grow_too_large_are_not_decoded(instance: Instance) -> None:
    """It is what they become that takes the memory."""
    ds_bytes = b"".join(codec.transcode(MADE.dataset, EXPLICIT, codec.LOSSLESS_TARGETS[2]))
    bomb = ds_bytes.replace(b"\x28\x00\x10\x00US\x02\x00\x40\x00", b"\x28\x00\x10\x00US\x02\x00\xff\xff")
    assert bomb != ds_bytes
    arrival = Arrival(bomb, MADE.sop_class_uid, MADE.sop_instance_uid, codec.LOSSLESS_TARGETS[2], None)
    assert instance.store().store(arrival) == "stored"
    retrieve = instance.retrieve()
    (wanted,) = retrieve.wanted({"SOPInstanceUID": [MADE.sop_instance_uid]})
    with pytest.raises(CannotUnderstand, match="transcode_size_bytes_max"):
        open_outgoing(retrieve, wanted, EXPLICIT, Transcoding(4 << 20))


def test_one_at_a_time_and_who_waits_can_give_up(
    stored: tuple[Retrieve, Wanted], monkeypatch: pytest.MonkeyPatch
) -> None:
    transcoding, inside, go_on = Transcoding(1 << 20), threading.Event(), threading.Event()
    real = codec.transcode

    def slow(*words: object) -> list[bytes]:
        inside.set()
        assert go_on.wait(20)
        return real(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(codec, "transcode", slow)
    first = threading.Thread(target=lambda: open_outgoing(*stored, JPEG_LS, transcoding).close())
    first.start()
    assert inside.wait(20)

    class GivenUp(Exception):
        pass

    def give_up() -> None:
        raise GivenUp

    with pytest.raises(GivenUp):
        open_outgoing(*stored, JPEG_LS, transcoding, while_waiting=give_up)
    go_on.set()
    first.join()
    monkeypatch.undo()
    open_outgoing(*stored, JPEG_LS, transcoding).close()
