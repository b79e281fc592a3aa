"""A new system on trial: its own selftest decides, and until then the boot loader's default is the old one.

    passed          the slot becomes the default, the data are this system's
    not passed      written down, and restarted: the old system comes up, and puts the data back if it must
    no word at all  the same when the time is up; when the kernel panics or hangs, the next start is the old system's

It watches from early in the boot on, and needs nothing of what it watches.
"""

from __future__ import annotations

import json
import logging
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pacs import clock
from pacs.errors import PacsError
from pacs.machine.slots import GrubEnvironment
from pacs.model.upgrade import System
from pacs.storage.upgrade_record import PASSED, Record, UpgradeFiles

log = logging.getLogger(__name__)

LIMIT_S = 1800.0
#: How often the selftest may fail after the boot has ended, and how long it waits in between [s].
TRIES, PAUSE_S = 3, 20.0
_STATUS_LIMIT_S = 120
_SELFTEST_LIMIT_S = 1200  # its unit ends it before

_UNHEARD_S = 180.0
_SELFTEST = "pacs-selftest.service"
_SERVICES = ("pacs-receiver@1.service", "pacs-worker.service")


@dataclass(frozen=True)
class Trial:
    """What the first boot of a new system is told: of which upgrade it is, and how long it has [s]."""

    record_id: str = ""
    limit_s: float = LIMIT_S


def encoded(trial: Trial) -> bytes:
    """As the slot has it."""
    return (json.dumps({"record_id": trial.record_id, "limit_s": trial.limit_s}) + "\n").encode()


def read(file: Path) -> Trial:
    """What the slot has; of no upgrade if there is nothing, or nothing that can be read."""
    try:
        found = json.loads(file.read_bytes())
        return Trial(str(found["record_id"]), float(found["limit_s"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Trial()


@dataclass(frozen=True)
class Outcome:
    """How the trial ended: `why` says why it was not passed."""

    passed: bool
    why: str = ""


def watch(
    limit_s: float,
    is_starting: Callable[[], bool],
    selftest: Callable[[], Outcome],
    pause: Callable[[float], None] = time.sleep,
) -> Outcome:
    """Wait for a selftest that passes. While the boot goes on its failures do not count."""
    ends_s, failures, last = clock.monotonic_s() + limit_s, 0, Outcome(False, "the selftest never ran")
    while clock.monotonic_s() < ends_s:
        was_starting = is_starting()
        last = selftest()
        if last.passed:
            return last
        failures += not was_starting
        if failures >= TRIES:
            return last
        pause(PAUSE_S)
    return Outcome(False, f"it did not pass within {limit_s / 60:.0f} minutes: {last.why}")


def pass_it(files: UpgradeFiles, environment: GrubEnvironment, slot: str, here: System) -> None:
    """This system has passed: the boot loader's default first, then the record."""
    record = files.record()
    if slot:
        environment.write(slot=slot)
    files.accept(here)
    if record is not None and record.is_open:
        record.outcome, record.ended_at = PASSED, clock.now().isoformat(timespec="seconds")
        files.put_record(record)
    log.warning("version %s has passed its selftest, and is booted from now on", here.version)


def give_up(files: UpgradeFiles, why: str) -> None:
    """This system has not passed: write down why. The next start puts things back."""
    log.error("this version has not passed, the one before is started again: %s", why)
    try:
        record: Record | None = files.record()
        if record is not None and record.is_open:
            record.back_at, record.why = clock.now().isoformat(timespec="seconds"), why
            files.put_record(record)
    except (PacsError, OSError):  # the volumes may be what is wrong
        log.exception("it cannot be written down why")


def ask_selftest() -> Outcome:
    """Run the selftest's own unit, or wait for the one that the timer has begun: there is one at a time."""
    active = subprocess.run(["systemctl", "is-active", "--quiet", *_SERVICES], check=False)
    if active.returncode != 0:
        return Outcome(False, f"not all of {', '.join(_SERVICES)} are up")
    try:
        answer = subprocess.run(
            ["systemctl", "start", "--wait", _SELFTEST],
            capture_output=True, text=True, timeout=_SELFTEST_LIMIT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return Outcome(False, f"the selftest did not end: {error}")
    return Outcome(answer.returncode == 0, _last_words() or "the selftest failed")


def ask_standby(pacs: str) -> Outcome:
    """A standby serves nobody, so no selftest runs there: that the archive's log comes says that it works."""
    command = [pacs, "standby", "status", "--json"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_STATUS_LIMIT_S, check=False)
        return of_standby(json.loads(answer.stdout)) if answer.returncode == 0 else Outcome(False, answer.stderr[-300:])
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return Outcome(False, f"the standby does not say how it is: {error}")


def of_standby(status: dict[str, Any]) -> Outcome:
    """What a standby's status says of it."""
    log = status.get("log") or {}
    return Outcome(bool(log.get("is_streaming")), "" if log.get("is_streaming") else "the archive's log does not come")


def _last_words() -> str:
    """What the selftest said last, and not systemd of it."""
    command = ["journalctl", "--boot", "--quiet", "--output=cat", "--lines=1", f"_SYSTEMD_UNIT={_SELFTEST}"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return " ".join(answer.stdout.split())[-300:]


def boot_goes_on() -> bool:
    """Whether the boot has not ended yet."""
    answer = subprocess.run(["systemctl", "is-system-running"], capture_output=True, text=True, check=False)
    return answer.stdout.strip() in ("initializing", "starting", "offline", "unknown")


def restart() -> None:
    """Restart the machine, by force if need be."""
    subprocess.run(["systemctl", "--no-block", "reboot"], check=False)
    time.sleep(_UNHEARD_S)
    subprocess.run(["systemctl", "reboot", "--force", "--force"], check=False)
