"""Every check, by name, in the order that they are shown in."""

from __future__ import annotations

from pacs.checks import (
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
    restore,
    room,
    selftest,
    shipping,
    tiers,
    upgrade,
    volumes,
)
from pacs.checks.check import Check

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
    "backup": backup.run,
    "shipping": shipping.run,
    "log": log.run,
    "drill": drill.run,
    "restore": restore.run,
    "upgrade": upgrade.run,
}
