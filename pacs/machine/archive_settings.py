"""The settings of the archive itself, where its own commands keep them: AE title, mails, administrators' keys.

They are in the configuration's backup, and come back with a restore, unlike those of the machine.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pacs.errors import SettingsError, UsageError
from pacs.jobs import mail_settings
from pacs.machine import access
from pacs.machine.applying import System
from pacs.machine.machine_settings import SETTINGS, TABLE, Effect
from pacs.storage import durable

#: Those that are in config/pacs.toml under the same name, and how a value is written there.
_IN_FILE: dict[str, Callable[[str], str | list[str]]] = {"ae_title": str}
_MAIL = {"mail_server": "host", "mail_tls": "tls", "mail_from": "sender", "mail_user": "user"}
_RESTARTED = ("pacs-receiver@1.service", "pacs-receiver@2.service", "pacs-web.service", "pacs-worker.service")


@dataclass(frozen=True)
class ArchiveSettings:
    """Those of the archive on one state volume."""

    state: Path
    keys: access.Keys = field(default_factory=access.Keys)
    system: System = field(default_factory=System)

    def values(self) -> dict[str, str]:
        """What counts now; a password is never told. Raise SettingsError."""
        found = {row.name: "" for row in TABLE if row.effect is Effect.ARCHIVE}
        toml = self._toml()
        for name in _IN_FILE:
            value = toml.get(name, SETTINGS[name].default)
            found[name] = " ".join(map(str, value)) if isinstance(value, list) else str(value)
        found["administrator_keys"] = "\n".join(self._key_lines())
        mail = mail_settings.mail_settings(self.state)
        if mail is not None:
            found |= {name: str(getattr(mail, attribute)) for name, attribute in _MAIL.items()}
            found |= {"mail_to": " ".join(mail.to), "mail_port": str(mail.port or "")}
        return found

    def change(self, given: Mapping[str, str]) -> None:
        """Change those that are given, in their parsed form. Raise UsageError if they do not go together."""
        mails = {name: text for name, text in given.items() if name.startswith("mail_")}
        if mails:
            self._change_mail(mails)
        if "administrator_keys" in given:
            self._change_keys(given["administrator_keys"].splitlines())
        for name in _IN_FILE.keys() & given.keys():
            self._change_in_file(name, _IN_FILE[name](given[name] or SETTINGS[name].default))

    def _change_mail(self, given: Mapping[str, str]) -> None:
        before = self.values()
        wanted = {name: given.get(name, before[name]) for name in before if name.startswith("mail_")}
        if not wanted["mail_server"]:
            mail_settings.forget(self.state)
            return
        settings = mail_settings.MailSettings(
            host=wanted["mail_server"],
            to=tuple(wanted["mail_to"].split()),
            sender=wanted["mail_from"],
            tls=wanted["mail_tls"] or SETTINGS["mail_tls"].default,  # type: ignore[arg-type]  # one of its choices
            port=int(wanted["mail_port"] or 0),
            user=wanted["mail_user"],
        )
        mail_settings.keep(self.state, settings, given.get("mail_password"), None)
        for path in (self.state / "config").glob("mail.*"):
            self._give(path)

    def _change_in_file(self, name: str, value: str | list[str]) -> None:
        """Change a line of config/pacs.toml, and no other: it is a person's file too."""
        path, before = self.state / "config/pacs.toml", self._toml()
        if before.get(name, SETTINGS[name].default) == value:
            return
        text = path.read_text("utf-8") if path.exists() else ""
        line = f"{name} = {json.dumps(value)}"
        changed, count = re.subn(rf"^{name}\s*=.*$", lambda _found: line, text, count=1, flags=re.MULTILINE)
        after = changed if count else f"{line}\n{text}"
        if _parsed(after) != {**before, name: value}:
            raise SettingsError(f"{path} is written in a way that is not changed here. Set {name} in it by hand.")
        durable.make_folders(path.parent)
        durable.replace_file(path, after.encode(), 0o640)
        self._give(path)
        self.system.run("systemctl", "--no-block", "try-restart", *_RESTARTED)

    def _change_keys(self, lines: list[str]) -> None:
        if not lines:
            raise UsageError("Without a key nobody could sign in by SSH any more. Give the new one first.")
        path = self.state / "config/ssh" / access.ADMINISTRATOR
        text = "".join(f"{line}\n" for line in lines).encode()
        durable.make_folders(path.parent)
        durable.replace_file(path, text, 0o644)
        self.keys.authorized.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        durable.replace_file(self.keys.authorized, text, 0o644)
        # A seed's keys are there too, and would come back from there at the next start.
        if self.keys.seeded.exists():
            seeded = self.keys.seeded.read_text("utf-8").splitlines()
            status = self.keys.seeded.stat()
            if all(line in lines for line in seeded):
                return
            kept = "".join(f"{line}\n" for line in seeded if line in lines)
            durable.replace_file(self.keys.seeded, kept.encode(), 0o600)
            os.chown(self.keys.seeded, status.st_uid, status.st_gid)

    def _key_lines(self) -> list[str]:
        found: list[str] = []
        for path in (self.state / "config/ssh" / access.ADMINISTRATOR, self.keys.seeded):
            lines = path.read_text("utf-8").splitlines() if path.exists() else []
            found += [line for line in lines if line.strip() and not line.startswith("#") and line not in found]
        return found

    def _toml(self) -> dict[str, object]:
        path = self.state / "config/pacs.toml"
        try:
            return tomllib.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise SettingsError(f"{path} cannot be read: {error}. Correct it.") from error

    def _give(self, path: Path) -> None:
        """To the service, which reads it and changes it by its own commands. The journal is the service's alone."""
        journal = self.state / "journal"
        if os.geteuid() == 0 and journal.exists():
            owner = journal.stat()
            os.chown(path, owner.st_uid, owner.st_gid)


def _parsed(text: str) -> dict[str, object] | None:
    try:
        return tomllib.loads(text)
    except ValueError:
        return None
