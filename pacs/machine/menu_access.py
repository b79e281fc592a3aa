"""The menu's page of administrators' keys: shown, added (typed, pasted, or of who signs in just now), removed."""

from __future__ import annotations

from collections.abc import Callable

from pacs.machine.access import ADMINISTRATOR
from pacs.machine.changing import Machine
from pacs.machine.dialog import Dialog
from pacs.machine.keyboard import Keyboard
from pacs.machine.menu_network import own_addresses
from pacs.machine.offered_keys import OfferedKeys, fingerprint

_NAME = "administrator_keys"
_SIGN_IN, _PASTE, _DISPLAY = "Sign in", "Paste", "Display"


class AccessPage:
    """Who may come in by SSH."""

    def __init__(self, machine: Machine, dialog: Dialog) -> None:
        self._machine = machine
        self._dialog = dialog

    def summary(self) -> str:
        """How many keys there are."""
        count = len(self._keys())
        return f"{count} administrator's key(s)" if count else "no administrator's key yet: nobody gets in by SSH"

    def run(self, others: Callable[[], object]) -> None:
        """The page, until it is left. others: opens the page of the other settings of access."""
        while True:
            keys = self._keys()
            items = [(_SIGN_IN, "take the key of who signs in just now: nothing to type")]
            items += [(_PASTE, "a public key, typed or pasted"), (_DISPLAY, "who may use this menu on the display")]
            items += [(f"Key {number}", f"{_comment(key)} {fingerprint(key)}") for number, key in enumerate(keys, 1)]
            text = f"Keys of `{ADMINISTRATOR}`, who may become root. Choose one to remove it."
            said = self._dialog.menu("Access", text, items)
            if said is None:
                return
            if said == _DISPLAY:
                others()
            elif self._may_change():
                if said == _SIGN_IN:
                    self._take_shown()
                elif said == _PASTE:
                    self._add(self._dialog.text("One line of a file *.pub: paste, then Tab to OK", "") or "")
                else:
                    self._remove(keys[int(said.removeprefix("Key ")) - 1])

    def _keys(self) -> list[str]:
        return self._machine.values()[_NAME].splitlines()

    def _may_change(self) -> bool:
        if _NAME in self._machine.kept().managed:
            self._dialog.say("Access", "Ansible manages the administrators' keys. Change them in the inventory.")
            return False
        return True

    def _add(self, text: str) -> None:
        if text.strip():
            self._machine.change({_NAME: "\n".join((*self._keys(), *text.strip().splitlines()))})

    def _remove(self, key: str) -> None:
        question = f"Remove this key?\n\n{_comment(key)}\n{fingerprint(key)}"
        if self._dialog.agrees("Access", question, "Remove", "Keep"):
            self._machine.change({_NAME: "\n".join(each for each in self._keys() if each != key)})

    def _take_shown(self) -> None:
        """Wait for somebody who shows a key, and take it if a person says that it is theirs."""
        host = (own_addresses() or ("this machine",))[0]
        lines = ["On your own machine:", "", f"    ssh {ADMINISTRATOR}@{host}", ""]
        lines += ["It is refused; the key that it showed is then told here.", "", "Any key: leave."]
        passed: set[str] = set()
        with OfferedKeys() as offered:
            while True:
                with Keyboard() as keyboard:
                    self._dialog.show("Waiting for a key", "\n".join(lines))
                    while not (new := [key for key in offered.seen() if key not in passed]):
                        if keyboard.key(1.0):
                            return
                passed.add(new[0])
                question = f"Somebody showed this key:\n\n{fingerprint(new[0])}\n\nYour own: ssh-keygen -l -f FILE.pub"
                if self._dialog.agrees("Is it yours?", question, "Take it", "No"):
                    self._add(new[0])
                    self._dialog.say("Access", f"Now sign in: ssh {ADMINISTRATOR}@{host}")
                    return


def _comment(key: str) -> str:
    words = key.split()
    return " ".join(words[2:])[:24] if len(words) > 2 else words[0]
