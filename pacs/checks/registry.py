"""Every check, by name, in the order that they are shown in."""

from __future__ import annotations

from pacs.checks import (
    audit,
    backup,
    commitments,
    conflicts,
    copies,
    database,
    devices,
    drill,
    fixity,
    lineage,
    log,
    mail,
    restore,
    room,
    selftest,
    shipping,
    standby,
    tiers,
    upgrade,
    volumes,
)
from pacs.checks.check import Check, Result, Subject
from pacs.storage.trial import trial_at


def _not_of_a_trial(name: str, check: Check) -> Check:
    """A check of what a trial copy must not do: there is nothing to be missed in one."""

    def run(subject: Subject) -> Result:
        if trial_at(subject.settings.data) is not None:
            return Result(name, "ok", "none: this is a trial copy")
        return check(subject)

    return run


CHECKS: dict[str, Check] = {
    "database": database.run,
    "lineage": lineage.run,
    "volumes": volumes.run,
    "room": room.run,
    "copies": copies.run,
    "fixity": fixity.run,
    "tiers": tiers.run,
    "conflicts": conflicts.run,
    "devices": devices.run,
    "commitments": commitments.run,
    "selftest": selftest.run,
    "backup": _not_of_a_trial("backup", backup.run),
    "shipping": _not_of_a_trial("shipping", shipping.run),
    "standby": _not_of_a_trial("standby", standby.run),
    "log": _not_of_a_trial("log", log.run),
    "drill": _not_of_a_trial("drill", drill.run),
    "restore": restore.run,
    "audit": audit.run,
    "mail": mail.run,
    "upgrade": upgrade.run,
}
