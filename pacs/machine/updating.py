"""Security updates of Debian's packages, in the window that the operator has set, and a restart in it if one is needed.

Once a day the archive is asked. In the window what it has is installed, and the machine is restarted if a program still
runs with what was replaced. Neither happens while something is at work that should not be cut off (busy), nor out of
the window. What the machine boots by (kernel, boot loader) is left alone: it comes with `pacs upgrade`, whose trial
goes back by itself from a system that does not start; here nothing could.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from pacs import clock
from pacs.errors import PacsError
from pacs.machine import commands
from pacs.machine.applying import Run
from pacs.model.update_window import OFF, window_of
from pacs.storage import update_state
from pacs.storage.update_state import Pending, UpdateState

#: Debian's label for its security archive.
LABEL = "Debian-Security"
_LOOK_EVERY = timedelta(hours=20)
_WITH_UPGRADE = re.compile(r"(linux-|grub|shim|initramfs-)")
_INSTALLED = re.compile(r"^Inst (?P<name>\S+)(?: \[[^\]]*\])? \((?P<version>\S+) (?P<origins>[^)]*)\)", re.M)
#: What is not cut off: they would begin again, and the backup of a night would be late.
_AT_WORK = ("pacs-backup.service", "pacs-drill.service", "pacs-trial.service", "pacs-selftest.service")
_SIMULATE = ("apt-get", "--simulate", "--quiet", "--with-new-pkgs", "upgrade")
_INSTALL = ("apt-get", "--quiet", "--assume-yes", "--only-upgrade", "-o", "Dpkg::Options::=--force-confold",
            "-o", "Dpkg::Options::=--force-confdef", "install")  # fmt: skip


@dataclass(frozen=True)
class Updating:
    """The updates of one system. apt, dpkg: options for each call of them; proc: its processes."""

    window: str
    state: Path = update_state.STATE
    apt: tuple[str, ...] = ()
    dpkg: tuple[str, ...] = ()
    proc: Path = Path("/proc")
    run: Run = commands.run
    upgrade_is_open: Callable[[], bool] = field(default=lambda: False)

    def turn(self, now: datetime, at_once: bool = False) -> UpdateState:
        """What is due now: look, install, restart. at_once: look and install, whatever the window. Raise MachineError.

        now: in the machine's own time.
        """
        window = window_of(self.window)
        known = replace(update_state.read(self.state) or UpdateState(), window=self.window, waits_for="")
        if window is None and not at_once:
            # What was pending is not looked at any more, so nothing is said of it.
            return self._kept(UpdateState(OFF, installed_at=known.installed_at))
        opened = window.opened_at(now) if window else None
        try:
            if at_once or _is_due(known, now, opened):
                known = self._kept(self._looked(known))
            if (at_once or opened) and (names := _installable(known)):
                known = self._installed(known, names)
            known = self._restarted(known, opened is not None)
        except PacsError as error:
            since = known.problem_since or clock.now().isoformat()
            self._kept(replace(known, problem=str(error), problem_since=since))
            raise
        return self._kept(replace(known, problem="", problem_since=""))

    def _kept(self, known: UpdateState) -> UpdateState:
        update_state.write(known, self.state)
        return known

    def _looked(self, known: UpdateState) -> UpdateState:
        self._apt("apt-get", "--quiet", "--error-on=any", "update")
        return replace(self._compared(known), looked_at=clock.now().isoformat())

    def _compared(self, known: UpdateState) -> UpdateState:
        now = clock.now().isoformat()
        before = known.pending
        pending = {
            name: Pending(version, before[name].since if name in before else now, bool(_WITH_UPGRADE.match(name)))
            for name, version in security_updates(self._apt(*_SIMULATE)).items()
        }
        return replace(known, pending=pending)

    def _installed(self, known: UpdateState, names: Iterable[str]) -> UpdateState:
        if reason := self._busy():
            return replace(known, waits_for=reason)
        self._apt("dpkg", "--configure", "--pending")  # what a loss of power has left in between
        self._apt(*_INSTALL, *names)
        return self._kept(replace(self._compared(known), installed_at=clock.now().isoformat()))

    def _restarted(self, known: UpdateState, may_restart: bool) -> UpdateState:
        stale = sorted(stale_programs(self.proc)) if known.installed_at else []
        if not stale:
            return replace(known, restart_since="")
        known = self._kept(replace(known, restart_since=known.restart_since or clock.now().isoformat()))
        if may_restart and not known.waits_for:
            if reason := self._busy() or self._session():
                return replace(known, waits_for=reason)
            self.run("systemctl", "--no-block", "reboot")
        return known

    def _busy(self) -> str:
        """What is at work that should not be cut off; empty if nothing is."""
        for unit in _AT_WORK:
            if self._said("systemctl", "show", "--property=ActiveState", "--value", unit) in ("active", "activating"):
                return f"{unit} is at work"
        if self.upgrade_is_open():
            return "an upgrade is not decided yet"
        wrong = critical(self._said("pacs", "check", "--json"))
        return f"`pacs check` is critical: {', '.join(wrong)}" if wrong else ""

    def _session(self) -> str:
        return "an administrator is signed in" if self._said("loginctl", "list-sessions", "--no-legend") else ""

    def _said(self, *words: str) -> str:
        return str(getattr(self.run(*words, accept=range(256)), "stdout", "")).strip()

    def _apt(self, program: str, *words: str) -> str:
        options = self.apt if program == "apt-get" else self.dpkg
        fixed = ("env", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive", program)
        return str(getattr(self.run(*fixed, *options, *words), "stdout", ""))


def security_updates(simulated: str) -> dict[str, str]:
    """Packages and versions that come from the security archive, in what a simulated upgrade prints."""
    return {found["name"]: found["version"] for found in _INSTALLED.finditer(simulated) if LABEL in found["origins"]}


def critical(checks: str) -> list[str]:
    """The checks that are critical, in what `pacs check --json` prints; `check` itself if it prints nothing of it."""
    try:
        return [str(each["name"]) for each in json.loads(checks) if each["severity"] == "critical"]
    except (ValueError, KeyError, TypeError):
        return ["check"]


def stale_programs(proc: Path) -> set[str]:
    """Names of programs that run with a file of the system that is not there any more."""
    found = set()
    for folder in proc.glob("[0-9]*"):
        try:
            if re.search(r" /usr/\S+ \(deleted\)$", (folder / "maps").read_text("utf-8", "replace"), re.M):
                found.add((folder / "comm").read_text("utf-8", "replace").strip())
        except OSError:
            continue  # it has ended
    return found


def _is_due(known: UpdateState, now: datetime, opened: datetime | None) -> bool:
    if not known.looked_at:
        return True
    looked = datetime.fromisoformat(known.looked_at)
    return now - looked > _LOOK_EVERY or (opened is not None and looked < opened)


def _installable(known: UpdateState) -> list[str]:
    return [name for name, each in known.pending.items() if not each.with_upgrade]
