"""The menu's pages of the archive: the engineer's sheet and the first image, live; backup and restore.

What has a command already is that command, run on the plain terminal: its questions and answers are the same there.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pacs.errors import PacsError
from pacs.machine.changing import Machine
from pacs.machine.dialog import Dialog, in_terminal
from pacs.machine.engineer_sheet import sheet_of
from pacs.machine.keyboard import Keyboard
from pacs.machine.service_command import PACS, ask

_LOOK_S = 3.0
_SHARE = "backup"  # what a share is called that the menu mounts
_PLACES = (
    "sftp://user@host/folder\ns3://bucket/folder\nserver:/folder      (NFS)\n//server/share     (SMB)\n"
    "/srv/pacs/usb      (a disk: `pacs machine add-disk` first)"
)


@dataclass(frozen=True)
class ArchivePages:
    """Pages over the archive's own commands."""

    machine: Machine
    dialog: Dialog
    pacs: Path = field(default=PACS)

    def first_image(self) -> None:
        """The sheet for the modality's engineer, and below it what comes, live, until it is left."""
        sheet, shown = sheet_of(self.machine), ""
        with Keyboard() as keyboard:
            while True:
                try:
                    found = ask("device", "arrivals", pacs=self.pacs)
                    waiting, text = found["pending"], news(found)
                except PacsError as error:
                    waiting, text = [], str(error)
                if text != shown:  # drawn anew only then: a key that is pressed meanwhile would be lost
                    self.dialog.show("For the modality's engineer", f"{sheet}\n\n{text}")
                    shown = text
                key = keyboard.key(_LOOK_S)
                if key == "a" and waiting:
                    self._accept(waiting[0])
                    shown = ""
                elif key:
                    return

    def _accept(self, caller: dict[str, Any]) -> None:
        question = f"Let {caller['calling_ae']} at {caller['address']} store and query here?"
        if self.dialog.agrees("Accept a device", question, "Accept", "No"):
            code = in_terminal(self.pacs, "device", "accept", str(caller["number"]))
            if code == 0:
                self.dialog.say("Accept a device", "Let it send again. This page shows when the image is here.")

    def backup(self) -> None:
        """Show the repositories, and make one."""
        choices = [("Add", "make a place a repository"), ("Show", "those there are"), ("Sheet", "print the key on it")]
        said = self.dialog.menu(
            "Backup", "Every object is copied there, sealed. Two places, one in another house.", choices
        )
        if said == "Show":
            in_terminal(self.pacs, "backup", "repository", "list")
        elif said == "Sheet":
            in_terminal(self.pacs, "backup", "keys", "show")
        elif said == "Add":
            name = self.dialog.line("Backup", "A name for it: small letters, digits, hyphens.", "backup")
            place = self.dialog.line("Backup", f"Where is it?\n{_PLACES}") if name else None
            if name and place and self._with_place(place, "backup", "repository", "add", name, "--place") == 0:
                self.dialog.say(
                    "Backup", "Without the recovery sheet nobody can read it. It is shown now: write it down."
                )
                in_terminal(self.pacs, "backup", "keys", "show")

    def restore(self) -> None:
        """Bring an archive back from its repository; the command asks for the sheet, and what else it wants."""
        place = self.dialog.line("Restore", f"Where is the repository?\n{_PLACES}")
        if place:
            self._with_place(place, "restore", "--repository")

    def _with_place(self, place: str, *words: str) -> int:
        """Run a command with a place at its end, and with the login that the place wants; its exit code."""
        with tempfile.TemporaryDirectory(prefix="pacs-login-", dir="/run") as folder:
            login = Path(folder, "login")
            if place.startswith("s3://"):
                return in_terminal(self.pacs, *words, place, *self._bucket(login))
            if place.startswith("sftp://"):
                password = self.dialog.password("Password", "Of the SFTP server's user.") or ""
                _write(login, f"password = {json.dumps(password)}\n")
                return in_terminal(self.pacs, *words, place, "--credentials-file", str(login))
            if not place.startswith("/") or place.startswith("//"):
                code = in_terminal(self.pacs, "machine", "mount", _SHARE, place, *self._share(place, login))
                if code != 0:
                    return code
                place = f"/srv/pacs/{_SHARE}"
            return in_terminal(self.pacs, *words, place)

    def _bucket(self, login: Path) -> list[str]:
        endpoint = self.dialog.line("Bucket", "URL of its S3 API; empty: Amazon's.") or ""
        key = self.dialog.line("Bucket", "Access key id") or ""
        secret = self.dialog.password("Bucket", "Secret access key") or ""
        _write(login, f"access_key_id = {json.dumps(key)}\nsecret_access_key = {json.dumps(secret)}\n")
        return [*(["--endpoint", endpoint] if endpoint else []), "--credentials-file", str(login)]

    def _share(self, place: str, login: Path) -> list[str]:
        if not place.startswith("//"):
            return []
        user = self.dialog.line("SMB share", "User") or ""
        password = self.dialog.password("SMB share", "Password") or ""
        _write(login, f"username={user}\npassword={password}\n")
        return ["--credentials-file", str(login)]


def news(found: dict[str, Any]) -> str:
    """What has come, and who waits, in a few lines. found: as `pacs device arrivals --json` has it."""
    lines, waiting = [], found["pending"]
    if not found["objects"]:
        lines.append("WAITING FOR YOUR FIRST IMAGE ...")
    else:
        last = found["newest"][0]
        many = f"{found['objects']} images are" if found["objects"] > 1 else "THE FIRST IMAGE IS"
        lines.append(f"{many} STORED. The last: {str(last['arrived_at'])[:19]}")
        lines.append(f"  {last['kind'][:40]} from {last['calling_ae'] or '-'}")
    if waiting:
        caller = waiting[0]
        lines += ["", f"{caller['calling_ae']} at {caller['address']} was refused: {', '.join(caller['problems'])}."]
        lines.append("  A   accept it")
    return "\n".join([*lines, "", "  Any other key: back"])


def _write(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text, "utf-8")
