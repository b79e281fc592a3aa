"""The machine's settings as they are kept: DATA/machine/settings.toml on the state volume, mode 0600.

They outlive the system disk, and are in no backup: an archive that is restored elsewhere must not take its old
address with it. What is the archive's own (AE title, mails, keys) is kept where its commands keep it, and backed up.

    [values]   what a person said, at the menu, by command, or in a seed
    [seeded]   what the seeds said when they were last looked at: what is new in one since then counts, and no more
    [managed]  what Ansible keeps: stands above the others, and is changed by nobody else
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pacs.errors import SettingsError, UsageError
from pacs.machine.machine_settings import SETTINGS, TABLE, Effect
from pacs.storage import durable

_HEAD = "# Written by `pacs machine`; change it with that: `pacs machine set NAME=VALUE`, or at the menu.\n"


@dataclass(frozen=True)
class Kept:
    """What is kept. Values are in their parsed form; one that is not there stands for the default."""

    values: dict[str, str] = field(default_factory=dict)
    seeded: dict[str, str] = field(default_factory=dict)
    managed: dict[str, str] = field(default_factory=dict)

    def value(self, name: str) -> str:
        """What counts: managed, else said, else the default."""
        return self.managed.get(name) or self.values.get(name) or SETTINGS[name].default

    def of_effect(self, *effects: Effect) -> dict[str, str]:
        """What counts, of all settings of these effects."""
        return {row.name: self.value(row.name) for row in TABLE if row.effect in effects}

    def require_unmanaged(self, names: Mapping[str, str]) -> None:
        """Raise UsageError if one of the names is Ansible's."""
        taken = [name for name in names if name in self.managed]
        if taken:
            raise UsageError(
                f"{', '.join(taken)}: managed by Ansible, so it is not changed here. Change it in the inventory "
                "(settings_managed) and run the playbook."
            )


def folder_of(state: Path) -> Path:
    """Where the machine's own things are on its state volume."""
    return state / "machine"


def load(state: Path) -> Kept:
    """What is kept on a state volume. Raise SettingsError if it cannot be read."""
    path = folder_of(state) / "settings.toml"
    try:
        found = tomllib.loads(path.read_text("utf-8"))
        return Kept(*(_texts(found.get(part, {})) for part in ("values", "seeded", "managed")))
    except FileNotFoundError:
        return Kept()
    except (OSError, ValueError, AttributeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}. Correct it, or remove it and set all again.") from error


def save(state: Path, kept: Kept) -> None:
    """Keep it, durably."""
    folder = folder_of(state)
    durable.make_folders(folder)
    lines = [_HEAD]
    for part in ("values", "seeded", "managed"):
        lines.append(f"\n[{part}]\n")
        lines += [f"{name} = {json.dumps(text)}\n" for name, text in sorted(getattr(kept, part).items()) if text]
    durable.replace_file(folder / "settings.toml", "".join(lines).encode(), 0o600)


def _texts(found: Mapping[str, object]) -> dict[str, str]:
    # What a newer version kept and this one does not know stays, for when that version is back.
    return {name: str(value) for name, value in found.items()}
