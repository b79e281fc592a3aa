"""A new network, tried: what it is, whether its gateway answers, and how long there is to keep it."""

from __future__ import annotations

import json
import socket
from math import ceil

from pacs.machine.changing import Machine
from pacs.machine.commands import MachineError, output
from pacs.machine.dialog import Dialog
from pacs.machine.keyboard import Keyboard
from pacs.machine.screen import addresses

_ANSWERING = {"REACHABLE", "STALE", "DELAY", "PROBE", "PERMANENT"}
_DISCARD = 9  # a port that nobody serves: only the way there is of interest


class NetworkConfirmation:
    """The page that stands while a change of the network waits to be kept."""

    def __init__(self, machine: Machine, dialog: Dialog) -> None:
        self._machine = machine
        self._dialog = dialog

    def ask_if_waiting(self) -> None:
        """Ask whether the new network stays, until it is said, here or elsewhere, or the time is over."""
        if self._machine.network.pending() is None:
            return
        shown = ""
        with Keyboard() as keyboard:
            while (waiting := self._machine.network.pending()) is not None and waiting.left_s > 0:
                # Drawn anew only when it says something else: a key that is pressed meanwhile would be lost.
                if (text := self._text(waiting.left_s)) != shown:
                    self._dialog.show("The network is new", shown := text)
                key = keyboard.key(1.0)
                if key == "k":
                    self._machine.network.confirm()
                    return
                if key == "g":
                    self._machine.network.go_back()
                    return
        if waiting is not None:  # the timer does it too; whoever comes first
            self._machine.network.go_back()
        values = self._machine.values()
        now = values["address"] if values["network"] == "static" else "by DHCP"
        self._dialog.say("The network", f"The time is over, or it was said elsewhere. IPv4 now: {now}.")

    def _text(self, left_s: float) -> str:
        found = " ".join(own_addresses()) or "none yet"
        lines = [f"Addresses now: {found}", *look_at_gateways(), ""]
        lines += ["Try it from another machine, or through a new SSH session.", ""]
        lines += [
            "  K   keep it",
            "  G   go back to how it was",
            "",
            f"It goes back by itself in {ceil(left_s / 5) * 5} s.",
        ]
        return "\n".join(lines)


def own_addresses() -> tuple[str, ...]:
    """This machine's addresses that others can reach."""
    try:
        return addresses(json.loads(output("ip", "-json", "address", "show", "up")))
    except (MachineError, ValueError):
        return ()


def look_at_gateways() -> list[str]:
    """For each default gateway whether it is there, in words. Asks for its hardware address, and nothing more."""
    try:
        routes = json.loads(output("ip", "-json", "route", "show", "default"))
        gateways = list(dict.fromkeys(route["gateway"] for route in routes if route.get("gateway")))
        for gateway in gateways:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"", (gateway, _DISCARD))
        return [_answers(gateway) for gateway in gateways] or ["There is no gateway: other networks are not reached."]
    except (MachineError, OSError, ValueError, KeyError):
        return ["The gateway cannot be reached."]


def _answers(gateway: str) -> str:
    found = json.loads(output("ip", "-json", "neighbour", "show", "to", gateway) or "[]")
    if any(_ANSWERING & set(each.get("state", ())) for each in found):
        return f"The gateway {gateway} answers."
    return f"The gateway {gateway} does not answer yet."
