"""Every check, by name, in the order that they are shown in; and which of them need no database."""

from __future__ import annotations

from collections.abc import Collection

from pacs.checks import (
    alerts,
    audit,
    backup,
    certificates,
    commitments,
    conflicts,
    copies,
    database,
    devices,
    disks,
    drill,
    firewall,
    fixity,
    lineage,
    log,
    memory,
    queues,
    raid,
    restore,
    room,
    selftest,
    shipping,
    silence,
    smart,
    standby,
    tiers,
    time,
    updates,
    upgrade,
    ups,
    vault,
    volumes,
)
from pacs.checks.check import Check, Ground, GroundCheck, Result, Subject, not_looked, run_all
from pacs.errors import DatabaseUnavailable, NotFound, PacsError
from pacs.storage.trial import trial_at


def _not_of_a_trial(name: str, check: Check) -> Check:
    """A check of what a trial copy must not do: there is nothing to be missed in one."""

    def run(subject: Subject) -> Result:
        if trial_at(subject.settings.data) is not None:
            return Result(name, "ok", "none: this is a trial copy")
        return check(subject)

    return run


#: What is looked at on every machine, a standby's too.
MACHINE: dict[str, GroundCheck] = {
    "disks": disks.run,
    "raid": raid.run,
    "smart": smart.run,
    "ups": ups.run,
    "time": time.run,
    "memory": memory.run,
    "firewall": firewall.run,
    "vault": vault.run,
    "updates": updates.run,
}
#: What needs no database, and is looked at when there is none.
GROUND: dict[str, GroundCheck] = {
    "lineage": lineage.run,
    **MACHINE,
    "certificates": certificates.run,
    "audit": audit.run,
    "alerts": alerts.run,
    "upgrade": upgrade.run,
}
CHECKS: dict[str, Check] = {
    "database": database.run,
    "lineage": lineage.run,
    "volumes": volumes.run,
    "room": room.run,
    "disks": disks.run,
    "raid": raid.run,
    "smart": smart.run,
    "ups": ups.run,
    "time": time.run,
    "memory": memory.run,
    "certificates": certificates.run,
    "copies": copies.run,
    "fixity": fixity.run,
    "tiers": tiers.run,
    "queues": queues.run,
    "conflicts": conflicts.run,
    "devices": devices.run,
    "silence": silence.run,
    "commitments": commitments.run,
    "selftest": selftest.run,
    "backup": _not_of_a_trial("backup", backup.run),
    "shipping": _not_of_a_trial("shipping", shipping.run),
    "standby": _not_of_a_trial("standby", standby.run),
    "log": _not_of_a_trial("log", log.run),
    "drill": _not_of_a_trial("drill", drill.run),
    "restore": restore.run,
    "firewall": firewall.run,
    "vault": vault.run,
    "updates": updates.run,
    "audit": audit.run,
    "alerts": alerts.run,
    "upgrade": upgrade.run,
}


def look(subject: Subject, only: Collection[str] = ()) -> list[Result]:
    """What every check says, or only some. Raise NotFound for a name that is none's."""
    return run_all(subject, {name: CHECKS[name] for name in _named(only)})


def look_without(ground: Ground, error: PacsError, only: Collection[str] = ()) -> list[Result]:
    """The same where no instance can be opened, and why: first that, then what can be looked at all the same."""
    is_down = isinstance(error, DatabaseUnavailable)
    hint = "Restart it: `sudo systemctl restart postgresql@17-main`." if is_down else "See the message."
    names = _named(only)
    made = {each.name: each for each in run_all(ground, {name: GROUND[name] for name in names if name in GROUND})}
    first = Result("database" if is_down else "instance", "critical", str(error), hint)
    return [first, *(made.get(name) or not_looked(name, first.name) for name in names if name != first.name)]


def _named(only: Collection[str]) -> list[str]:
    for name in only:
        if name not in CHECKS:
            raise NotFound(f"There is no check {name}. There are: {', '.join(CHECKS)}.")
    return [name for name in CHECKS if not only or name in only]
