"""The address that an archive and its standby share: whichever is the archive has it on its card.

    every two seconds: is this node the archive?  yes --> nobody else answers for it? --> on the card, announced
                                                  no ---> off the card

Who is the archive a person has said (`pacs standby promote`); nothing is elected here. A node that wakes up and does
not know yet that it is over finds the address taken, and leaves it. IPv4 only.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

from pacs import clock
from pacs.backup.standby_files import StandbyFiles
from pacs.errors import PacsError
from pacs.machine.commands import output, run
from pacs.storage.lineage import LineageFiles

log = logging.getLogger(__name__)

#: How long others may take to answer for the address [s], how often they are asked, and how often it is announced [s].
_ANSWER_S, _ASKED, _ANNOUNCE_S = 1.0, 3, 30.0
_TURN_S = 2.0
#: What marks an address as put there by us; a card's label is 15 letters long, and begins with its name.
_LABEL = ":pacs"
_NOBODY = "0.0.0.0"  # noqa: S104 - nothing listens there: it is the sender of a question
_ARP = 0x0806
_EVERYBODY = b"\xff" * 6


class ServiceAddress:
    """The shared address on this machine. Call `turn` every two seconds, with CAP_NET_ADMIN and CAP_NET_RAW."""

    def __init__(self, data: Path) -> None:
        self._data, self._announce_at_s = data, 0.0

    def give_up(self) -> None:
        """Have it no more, whoever is the archive."""
        self._drop(self._held())

    def turn(self, wanted: str) -> str:
        """Have the address or not. wanted: with its prefix length, 192.0.2.30/24; empty: none. Return what there is to
        say: empty while all is as it should be."""
        held, here = self._held(), ipaddress.ip_interface(wanted) if wanted else None
        if here is None or not self._is_archive():
            self._drop(held)
            return ""
        self._drop([each for each in held if each[1] != str(here)])
        if (card := next((name for name, text in held if text == str(here)), "")) == "":
            card = _card_of(here)
            if not card:
                return f"no card of this machine is in the network of {here}: it is not taken"
            if other := asked(card, str(here.ip)):
                return f"{here.ip} is held by {other}: it is not taken. If that is the old archive, shut it down."
            run("ip", "address", "add", str(here), "dev", card, "label", f"{card[: 15 - len(_LABEL)]}{_LABEL}")
            log.warning("this node is the archive: it has the address %s", here)
            self._announce_at_s = 0.0
        if clock.monotonic_s() >= self._announce_at_s:
            self._announce_at_s = clock.monotonic_s() + _ANNOUNCE_S
            announce(card, str(here.ip))
        return ""

    def _is_archive(self) -> bool:
        """A hand-over that is under way is no end of it: who takes over finds it free when this one is over."""
        if StandbyFiles(self._data).following() is not None:
            return False
        files = LineageFiles(self._data)
        return files.fenced() is None or files.is_paused()

    def _held(self) -> list[tuple[str, str]]:
        """The cards with an address that was put there by us, each with it: they carry our label."""
        return [
            (card["ifname"], f"{each['local']}/{each['prefixlen']}")
            for card in json.loads(output("ip", "-json", "-4", "address", "show"))
            for each in card["addr_info"]
            if str(each.get("label", "")).endswith(_LABEL)
        ]

    def _drop(self, held: list[tuple[str, str]]) -> None:
        for card, text in held:
            run("ip", "address", "del", text, "dev", card)
            log.warning("the address %s is given up", text)


def keep(data: Path, setting: Path, stop: threading.Event, notify: Callable[[str], None]) -> None:
    """Have the address that a file names while this node is the archive, until stop is set; then give it up."""
    work, told = ServiceAddress(data), ""
    notify("READY=1")
    while not stop.is_set():
        try:
            said = work.turn(setting.read_text("ascii").strip() if setting.exists() else "")
        except (PacsError, OSError) as error:  # a card that is going down, say
            said = str(error)
        if said and said != told:
            log.error("%s", said)
        told = said
        stop.wait(_TURN_S)
    notify("STOPPING=1")
    work.give_up()


def _card_of(wanted: ipaddress.IPv4Interface | ipaddress.IPv6Interface) -> str:
    """The card that is in the network of an address; empty if none is."""
    for card in json.loads(output("ip", "-json", "-4", "address", "show", "up")):
        for each in card["addr_info"]:
            if wanted.ip in ipaddress.ip_network(f"{each['local']}/{each['prefixlen']}", strict=False):
                return str(card["ifname"])
    return ""


def asked(card: str, address: str) -> str:
    """Ask on a card who has an address (RFC 5227, 2.1.1); return the hardware address that answers, empty if none."""
    with _packets(card) as packets:
        own = packets.getsockname()[4]
        for _time in range(_ASKED):
            packets.send(_frame(own, own, _NOBODY, b"\0" * 6, address, 1))
            ends_s = clock.monotonic_s() + _ANSWER_S / _ASKED
            while (left_s := ends_s - clock.monotonic_s()) > 0:
                packets.settimeout(left_s)
                with contextlib.suppress(TimeoutError):
                    content = packets.recv(2048)
                    sender, theirs = content[22:28], content[28:32]
                    if len(content) >= 42 and theirs == socket.inet_aton(address) and sender != own:
                        return sender.hex(":")
    return ""


def announce(card: str, address: str) -> None:
    """Tell everybody on a card that an address is here (RFC 5227, 2.3): as question and as answer, as some hear one."""
    with _packets(card) as packets:
        own = packets.getsockname()[4]
        packets.send(_frame(own, own, address, b"\0" * 6, address, 1))
        packets.send(_frame(own, own, address, _EVERYBODY, address, 2))


def _packets(card: str) -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ARP))
    try:
        made.bind((card, _ARP))
    except BaseException:
        made.close()
        raise
    return made


def _frame(source: bytes, sender: bytes, sender_ip: str, target: bytes, target_ip: str, operation: int) -> bytes:
    """An ARP packet to everybody (RFC 826)."""
    head = _EVERYBODY + source + struct.pack("!HHHBBH", _ARP, 1, 0x0800, 6, 4, operation)
    return head + sender + socket.inet_aton(sender_ip) + target + socket.inet_aton(target_ip)
