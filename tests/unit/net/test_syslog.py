"""Messages of syslog, and where they go."""

from __future__ import annotations

import re

import pytest

from pacs.model.syslog import SECURITY, Level, enveloped
from pacs.net.syslog import PORT, Receiver


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("arr.example", "arr.example", PORT),
        ("arr.example:10514", "arr.example", 10514),
        ("192.0.2.1:1", "192.0.2.1", 1),
        ("[2001:db8::1]:99", "2001:db8::1", 99),
        ("[2001:db8::1]", "2001:db8::1", PORT),
    ],
)
def test_a_receiver_is_a_host_and_a_port(text: str, host: str, port: int) -> None:
    found = Receiver.parse(text)
    assert (found.host, found.port) == (host, port)


@pytest.mark.parametrize("text", ["", ":6514", "arr:0", "arr:70000"])
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"{re.escape(text)}$"):
        Receiver.parse(text)


def test_nothing_in_a_message_can_end_its_header_or_its_data() -> None:
    made = enveloped(Level.WARNING, "2026-11-22T10:00:00Z", "a host\n", "K D", {"x": 'a"]\\\n'}, b"<x/>", SECURITY)
    head, _, content = made.partition(b"\xef\xbb\xbf")
    assert content == b"<x/>"
    assert head.startswith(b"<84>1 2026-11-22T10:00:00Z a_host_ pacs ")
    assert head.endswith(b' K_D [pacs@32473 x="a\\"\\]\\\\ "] ')
