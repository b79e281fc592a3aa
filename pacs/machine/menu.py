"""The menu: `pacs machine setup`, on the display and over SSH. What it has of settings is the table's, row by row.

A page's changes are a draft until they are applied: then all of them are checked together, as in every other way in.
What more there is (keys, backup, restore, devices, the first image) stands in menu_network, menu_access and
menu_archive.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from pacs.errors import PacsError
from pacs.machine import machine_settings as table
from pacs.machine.changing import Machine
from pacs.machine.dialog import Dialog
from pacs.machine.machine_settings import PAGES, TABLE, Setting
from pacs.machine.menu_access import AccessPage
from pacs.machine.menu_archive import ArchivePages
from pacs.machine.menu_network import NetworkConfirmation

T = TypeVar("T")
_APPLY = "Apply"
_SHOWN = 44


class Menu:
    """The menu on one terminal. on_display: nobody is cut off there by a change of the network."""

    def __init__(self, machine: Machine, version: str, on_display: bool) -> None:
        self._machine = machine
        self._dialog = Dialog(f"PACS appliance {version}")
        self._network = NetworkConfirmation(machine, self._dialog)
        self._access = AccessPage(machine, self._dialog)
        self._archive = ArchivePages(machine, self._dialog)
        self._leave = "Leave" if on_display else "Quit"

    def run(self) -> None:
        """Show the menu until it is left. What goes wrong is told in a box, and the menu goes on."""
        at = ""
        while True:
            self._guarded(self._network.ask_if_waiting)
            entries = self._entries()
            items = [(name, self._guarded(beside) or "") for name, beside, _ in entries]
            text = "In this order to the first image. Arrows move, Enter opens, Tab goes to the buttons."
            said = self._dialog.menu("Set up this appliance", text, items, at, self._leave)
            if said is None:
                return
            at = said
            self._guarded(next(act for name, _, act in entries if name == said))

    def _entries(self) -> list[tuple[str, Callable[[], str], Callable[[], object]]]:
        """Name, what stands beside it, and what it does."""
        pages = [
            (page, lambda page=page: self._summary(page), lambda page=page: self._page(page))
            for page in PAGES
            if page != table.ACCESS
        ]
        return [
            pages[0],
            (table.ACCESS, self._access.summary, self._open_access),
            *pages[1:],
            ("First image", lambda: "the modality's sheet, and waiting for it", self._archive.first_image),
            ("Backup", lambda: "where every image is copied to", self._archive.backup),
            ("Restore", lambda: "an archive brought back from its backup", self._archive.restore),
        ]

    def _summary(self, page: str) -> str:
        values = self._machine.values()
        if page == table.NETWORK:
            return values["address"] if values["network"] == "static" else "by DHCP"
        if page == table.DICOM:
            return f"AE title {values['ae_title']}, ports {values['dicom_ports']}"
        if page == table.FIREWALL:
            is_strict = values["registered_devices_only"] == "on"
            return f"DICOM from {'registered devices' if is_strict else values['clinical_networks']}"[:_SHOWN]
        if page == table.UPDATES:
            return values["update_window"]
        if page == table.ENCRYPTION:
            return f"of the volumes: {values['encrypt_volumes']}"
        if page == table.CERTIFICATES:
            return values["acme_directory"][:_SHOWN] or "issued by the appliance itself, or put in by command"
        if page == table.REMOTE:
            return f"dials {values['wireguard_endpoint']}"[:_SHOWN] if values["wireguard_peer"] else "off"
        if page == table.MAIL:
            return f"to {values['mail_to']}"[:_SHOWN] if values["mail_server"] else "none are sent"
        if page == table.UPS:
            return f"{values['ups']}, down at {values['ups_shutdown_charge']} %" if values["ups"] != "none" else "none"
        return f"{values['host_name'] or 'no name'}, {values['time_zone']}"[:_SHOWN]

    def _open_access(self) -> None:
        self._access.run(lambda: self._page(table.ACCESS, skip=("administrator_keys",)))

    def _page(self, page: str, skip: tuple[str, ...] = ()) -> None:
        """The rows of a page, until they are applied or left."""
        rows = [row for row in TABLE if row.page == page and row.name not in skip]
        draft: dict[str, str] = {}
        at = ""
        while True:
            values = {**self._machine.values(), **draft}
            managed = self._machine.kept().managed
            items = [(row.label, _beside(row, values, draft, managed)) for row in rows]
            if draft:
                items.insert(0, (_APPLY, "the changes that are marked with *"))
            said = self._dialog.menu(page, "Enter changes a value. An empty one is the default.", items, at)
            if said is None:
                if not draft or self._dialog.agrees(page, "Drop the changes that were not applied?", "Drop", "Stay"):
                    return
            elif said == _APPLY:
                if self._guarded(lambda: self._apply(draft)):
                    return
            else:
                at = said
                row = next(row for row in rows if row.label == said)
                if row.name in managed:
                    self._dialog.say(row.label, "Ansible manages this setting. Change it in the inventory.")
                elif (text := self._ask(row, values[row.name])) is not None:
                    draft[row.name] = text
                    if not row.secret and text == self._machine.values()[row.name]:
                        draft.pop(row.name)

    def _apply(self, draft: Mapping[str, str]) -> bool:
        checked = self._machine.check(draft)
        if self._machine.change(checked):
            self._network.ask_if_waiting()
        return True

    def _ask(self, row: Setting, before: str) -> str | None:
        """A value for a row, in its parsed form; asked for until it is good. None: left as it is."""
        typed = before
        while True:
            said = self._typed(row, typed)
            if said is None:
                return None
            try:
                return table.parse(row.name, said)
            except PacsError as error:
                self._dialog.say(row.label, str(error).removeprefix(f"{row.name}: "))
                typed = said

    def _typed(self, row: Setting, before: str) -> str | None:
        if row.choices:
            return self._dialog.menu(row.label, row.meaning, [(word, "") for word in row.choices], before)
        if row.secret:
            return self._dialog.password(row.label, row.meaning)
        if row.many_lines:
            return self._dialog.text(f"{row.label}: paste, then Tab to OK", before)
        hint = f"\n\nEmpty: {row.default}" if row.default else ""
        return self._dialog.line(row.label, row.meaning + hint, before)

    def _guarded(self, act: Callable[[], T]) -> T | None:
        """Do it; an error is told in a box."""
        try:
            return act()
        except (PacsError, OSError) as error:
            self._dialog.say("That did not work", str(error))
            return None


def _beside(row: Setting, values: Mapping[str, str], draft: Mapping[str, str], managed: Mapping[str, str]) -> str:
    text = values[row.name]
    if row.secret:
        text = "(not shown)" if row.name in draft else ""
    elif row.many_lines:
        text = f"{text.count('BEGIN CERTIFICATE')} certificate(s)" if text else ""
    mark = "* " if row.name in draft else ""
    note = " (Ansible)" if row.name in managed else ""
    return (mark + text)[: _SHOWN - len(note)] + note
