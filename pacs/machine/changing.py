"""The settings changed: the one way that all ways in take. Checked as a whole, kept, put into effect.

a person   change(): what is the archive's, then what is the machine's, then the network, which goes back by itself
seeds      take_seeds(): at each start; what is new in them since the last time
Ansible    manage(): all that it keeps, at once; stands above the others
a start    start(): a change of the network that nobody confirmed goes back, seeds, all is put into effect
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pacs.errors import PacsError, UsageError
from pacs.machine import access, applying, kept_settings, ups
from pacs.machine import machine_settings as table
from pacs.machine.archive_settings import ArchiveSettings
from pacs.machine.kept_settings import Kept
from pacs.machine.machine_settings import SETTINGS, Effect
from pacs.machine.network_change import CONFIRM_S, Network
from pacs.storage import durable

log = logging.getLogger(__name__)

#: For the screen: what of the settings a person should know of.
NOTES = Path("/run/pacs-machine/settings-notes")


@dataclass(frozen=True)
class Machine:
    """The settings of one machine, and where they take effect."""

    state: Path
    network: Network
    archive: ArchiveSettings
    system: applying.System

    @classmethod
    def at(cls, state: Path) -> Machine:
        """This machine's."""
        return cls(state, Network(state), ArchiveSettings(state), applying.System())

    def kept(self) -> Kept:
        """What is kept of the machine's."""
        return kept_settings.load(self.state)

    def values(self) -> dict[str, str]:
        """What counts, of every setting; a password is never told."""
        kept = self.kept()
        found = {**kept.of_effect(Effect.NETWORK, Effect.MACHINE), **self.archive.values()}
        return {name: "" if SETTINGS[name].secret else found[name] for name in SETTINGS}

    def check(self, given: Mapping[str, str]) -> dict[str, str]:
        """The values in their parsed form, seen beside those that stay. Raise UsageError if they cannot be."""
        parsed = table.parse_all(given)
        kept = self.kept()
        kept.require_unmanaged(parsed)
        table.require_consistent({**kept.of_effect(Effect.NETWORK), **parsed})
        ups.require_whole({**kept.of_effect(Effect.MACHINE), **parsed})
        return parsed

    def change(self, given: Mapping[str, str], confirm_s: float = CONFIRM_S) -> bool:
        """Change what is given; an empty text stands for the default. Whether the network has changed.

        Then it goes back after confirm_s, unless it is confirmed. Raise UsageError before anything is changed.
        """
        parsed = self.check(given)
        kept = self.kept()
        after = replace(kept, values={**kept.values, **_of_effect(parsed, Effect.NETWORK)})
        is_new = _network_differs(kept, after)
        if is_new:
            self.network.require_free(confirm_s)
        self._change_archive(_of_effect(parsed, Effect.ARCHIVE))
        if machine := _of_effect(parsed, Effect.MACHINE):
            after = replace(after, values={**after.values, **machine})
            kept_settings.save(self.state, replace(kept, values={**kept.values, **machine}))
            self.apply()
        if is_new:
            self.network.begin(after, confirm_s)
        return is_new

    def _change_archive(self, given: Mapping[str, str]) -> None:
        now = self.archive.values() if given else {}
        # Whether it is another password cannot be seen.
        self.archive.change({name: text for name, text in given.items() if now[name] != text or SETTINGS[name].secret})

    def apply(self) -> list[str]:
        """Put the machine's settings into effect, but for the network. The names of what was changed."""
        return applying.apply(self.kept().of_effect(Effect.MACHINE), self.system)

    def manage(self, given: Mapping[str, str], confirm_s: float = CONFIRM_S) -> tuple[list[str], bool]:
        """Have Ansible's settings be these and no others. The names of what changed; whether that is the network."""
        parsed = table.parse_all(given)
        if any(SETTINGS[name].secret for name in parsed):
            raise UsageError("A password is not managed: it would stand in the inventory. `pacs mail set` keeps one.")
        kept, before = self.kept(), self.values()
        after = replace(kept, managed=parsed)
        table.require_consistent(after.of_effect(Effect.NETWORK))
        ups.require_whole(after.of_effect(Effect.MACHINE))
        is_new = _network_differs(kept, after)
        if is_new:
            self.network.require_free(confirm_s)
        self._change_archive(_of_effect(parsed, Effect.ARCHIVE))
        net = _of_effect(kept.managed, Effect.NETWORK)
        others = {name: text for name, text in parsed.items() if name not in _of_effect(parsed, Effect.NETWORK)}
        kept_settings.save(self.state, replace(kept, managed={**net, **others}))
        self.apply()
        if is_new:
            self.network.begin(after, confirm_s)
        else:
            kept_settings.save(self.state, after)
        now = self.values()
        changed = [name for name in SETTINGS if before[name] != now[name]]
        return changed + sorted(kept.managed.keys() ^ parsed.keys() - set(changed)), is_new

    def start(self, seeded: Mapping[str, str]) -> list[str]:
        """At a start of the machine: all is put into effect. Return what a person should know of."""
        notes = []
        if self.network.go_back():
            notes.append("A change of the network was not confirmed before the restart: it is as it was before.")
        notes += self.take_seeds(seeded)
        self.network.put_in()
        self.apply()
        return notes

    def take_seeds(self, seeded: Mapping[str, str]) -> list[str]:
        """Take what the seeds say that they did not say the last time. Return what is wrong with it.

        A value with a fault is left out, and the whole network's with it: half of it would cut the machine off. What
        is left out is tried, and told of, at each start.
        """
        kept = self.kept()
        new = {
            name: text for name, text in seeded.items() if kept.seeded.get(name) != text and not _is_known(name, kept)
        }
        taken, faults = _checked(new, kept)
        archive = _of_effect(taken, Effect.ARCHIVE)
        try:
            if "administrator_keys" in archive:  # a key more, never one less
                now = self.archive.values()["administrator_keys"]
                archive["administrator_keys"] = access.merge(now, archive["administrator_keys"]).strip()
            self._change_archive(archive)
        except PacsError as error:
            faults.append(f"Not taken from the seed: {error}")
            taken = {name: text for name, text in taken.items() if name not in archive}
        own = {name: text for name, text in taken.items() if name not in archive}
        remembered = {name: seeded[name] for name in seeded if name in taken or name not in new}
        remembered = {name: text for name, text in remembered.items() if not SETTINGS[name].secret}
        if own or remembered != kept.seeded:
            kept_settings.save(self.state, replace(kept, values={**kept.values, **own}, seeded=remembered))
        return faults


def _checked(new: Mapping[str, str], kept: Kept) -> tuple[dict[str, str], list[str]]:
    """What of a seed's new values can be taken, in parsed form; and what is wrong with the others."""
    good: dict[str, str] = {}
    faults = []
    for name, text in new.items():
        try:
            good[name] = table.parse(name, text)
        except UsageError as error:
            faults.append(f"Not taken from the seed: {error}")
    net = _of_effect(new, Effect.NETWORK)
    try:
        if net.keys() - good.keys():
            raise UsageError("a part of it has a fault, so none of it counts.")
        if net:
            table.require_consistent({**kept.of_effect(Effect.NETWORK), **good})
    except UsageError as error:
        faults.append(f"The network is not taken from the seed: {error}")
        good = {name: text for name, text in good.items() if name not in net}
    return good, faults


def _of_effect(values: Mapping[str, str], effect: Effect) -> dict[str, str]:
    return {name: text for name, text in values.items() if name in SETTINGS and SETTINGS[name].effect is effect}


def _network_differs(before: Kept, after: Kept) -> bool:
    return before.of_effect(Effect.NETWORK) != after.of_effect(Effect.NETWORK)


def _is_known(name: str, kept: Kept) -> bool:
    """Whether it is not looked at: managed, or a password, of which nothing is remembered, after the first start."""
    return name in kept.managed or (SETTINGS[name].secret and bool(kept.seeded))


def write_notes(notes: list[str], path: Path = NOTES) -> None:
    """Leave for the screen what a person should know of."""
    if notes:
        path.parent.mkdir(parents=True, exist_ok=True)
        durable.replace_file(path, "".join(f"{note}\n" for note in notes).encode(), 0o644)
    else:
        path.unlink(missing_ok=True)
    for note in notes:
        log.warning("%s", note)
