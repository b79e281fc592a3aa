"""A change of the network that goes back by itself, unless it is confirmed in time.

    begin    what was is written down; a timer of systemd's is started, then the new files are put in
    confirm  the timer is stopped, what was is forgotten
    go back  by the timer, by a person, or at the next start if it was never confirmed: the old files again

The timer is systemd's, not ours: it fires when the SSH session that began it is gone. It is started before anything is
changed, so that whatever becomes of us in between, the old network comes back.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pacs import clock
from pacs.errors import NotFound, SettingsError, UsageError
from pacs.machine import kept_settings, networkd
from pacs.machine.commands import run
from pacs.machine.kept_settings import Kept, folder_of
from pacs.machine.machine_settings import Effect, network_of
from pacs.storage import durable

UNIT = "pacs-network-back"
#: How long a person has to confirm [s]: time to find out that the new address answers, and to sign in there.
CONFIRM_S = 120
CONFIRM_S_MIN, CONFIRM_S_MAX = 15, 3600

Run = Callable[..., Any]


@dataclass(frozen=True)
class Pending:
    """A change that waits to be confirmed. values, managed: the network's, as they were said before."""

    values: dict[str, str]
    managed: dict[str, str]
    ends_at: str

    @property
    def left_s(self) -> float:
        """How long there is to confirm it [s]; below 0 when it should be over."""
        return (datetime.fromisoformat(self.ends_at) - clock.now()).total_seconds()


@dataclass(frozen=True)
class Network:
    """The network of this machine. files: where systemd-networkd reads; links: what cards there are."""

    state: Path
    files: Path = Path("/etc/systemd/network")
    links: Path = Path("/sys/class/net")
    run: Run = run

    @property
    def _record(self) -> Path:
        return folder_of(self.state) / "network-change.json"

    def pending(self) -> Pending | None:
        """The change that waits to be confirmed."""
        try:
            return Pending(**json.loads(self._record.read_text("utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise SettingsError(f"{self._record} cannot be read: {error}. Remove it, and restart.") from error

    def require_free(self, seconds: float) -> None:
        """Raise UsageError if no change can be begun now, or not with so much time to confirm it."""
        if self.pending() is not None:
            raise UsageError(
                "A change of the network waits already: `pacs machine confirm`, or `pacs machine go-back`."
            )
        if not CONFIRM_S_MIN <= seconds <= CONFIRM_S_MAX:
            raise UsageError(f"{seconds:g} s is no time to confirm in: {CONFIRM_S_MIN} to {CONFIRM_S_MAX}.")

    def begin(self, after: Kept, seconds: float) -> None:
        """Change the network for now: it goes back after so many seconds, unless it is confirmed."""
        self.require_free(seconds)
        kept = kept_settings.load(self.state)
        before = Pending(
            _network(kept.values), _network(kept.managed), (clock.now() + timedelta(seconds=seconds)).isoformat()
        )
        durable.make_folders(folder_of(self.state))
        durable.replace_file(self._record, json.dumps(asdict(before)).encode(), 0o600)
        self._start_timer(seconds)
        kept_settings.save(self.state, after)
        self.put_in()

    def confirm(self) -> None:
        """Keep the new network. Raise NotFound if nothing waits."""
        if self.pending() is None:
            raise NotFound("No change of the network waits to be confirmed. `pacs machine list` shows what counts.")
        self._forget()
        self.run("systemctl", "stop", f"{UNIT}.timer", accept=range(256))

    def go_back(self) -> bool:
        """Put the old network in again; whether there was a change to take back."""
        found = self.pending()
        if found is None:
            return False
        # The record goes last: killed in between, the next start does it again.
        kept = kept_settings.load(self.state)
        values = {**_others(kept.values), **found.values}
        kept_settings.save(self.state, replace(kept, values=values, managed={**_others(kept.managed), **found.managed}))
        self.put_in()
        self._forget()
        self.run("systemctl", "stop", f"{UNIT}.timer", accept=range(256))
        return True

    def put_in(self, reload: bool = True) -> bool:
        """Have the files that the settings want, and systemd-networkd follow them; whether anything changed."""
        settings = kept_settings.load(self.state).of_effect(Effect.NETWORK)
        wanted = networkd.render(settings, networkd.cards(self.links))
        self.files.mkdir(parents=True, exist_ok=True)
        changed = False
        for path in self.files.glob(networkd.PATTERN):
            if path.name not in wanted:
                path.unlink()
                changed = True
        for name, text in wanted.items():
            path = self.files / name
            if not path.exists() or path.read_text("utf-8") != text:
                durable.replace_file(path, text.encode(), 0o644)
                changed = True
        if changed and reload:
            if not settings["vlan"] or (self.links / networkd.VLAN).exists():  # networkd never removes or changes one
                self.run("ip", "link", "delete", networkd.VLAN, accept=range(256))
            self.run("networkctl", "reload")
        return changed

    def _forget(self) -> None:
        self._record.unlink(missing_ok=True)
        durable.fsync_folder(self._record.parent)

    def _start_timer(self, seconds: float) -> None:
        self.run("systemctl", "stop", f"{UNIT}.timer", accept=range(256))
        self.run(
            "systemd-run", f"--unit={UNIT}", f"--on-active={seconds:g}s", "--timer-property=AccuracySec=200ms",
            "--property=Type=oneshot", "--collect", "--quiet",
            sys.executable, "-m", "pacs.cli.machine", "go-back", "--quietly",
        )  # fmt: skip


def _network(values: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in values.items() if name in network_of({})}


def _others(values: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in values.items() if name not in network_of({})}
