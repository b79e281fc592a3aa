"""Does the database answer, is its schema this version's, and is its server well?"""

from __future__ import annotations

from pacs.checks.check import Figure, Result, Subject
from pacs.index import database as index
from pacs.index.server import ServerHealth, server_health

#: Of the connections that the server takes [%]; of its 2,147 million transactions [millions].
_FULL_PERCENT = 90
_OLD_MILLIONS, _TOO_OLD_MILLIONS = 1000, 1600


def run(subject: Subject) -> Result:
    """Ask it."""
    index.require_current(subject.database)
    return judged(server_health(subject.database))


def judged(health: ServerHealth) -> Result:
    """What is to be said of a server that answers."""
    used, old = 100 * health.connections / health.connections_max, health.oldest_transaction / 1e6
    figures = (
        Figure("connections_percent", round(used, 1), _FULL_PERCENT),
        Figure("oldest_transaction_millions", round(old, 1), _OLD_MILLIONS, _TOO_OLD_MILLIONS),
        Figure("checksum_failures", health.checksum_failures, None, 1),
        Figure("size_bytes", health.size_bytes),
    )
    if health.checksum_failures:
        return Result(
            "database", "critical", f"{health.checksum_failures} of its pages had wrong checksums when they were read",
            "Look at the state's disk; `pacs backup run`, then `pacs index rebuild` (docs/operate/rebuild.md).",
            figures,
        )  # fmt: skip
    if old > _OLD_MILLIONS:
        return Result(
            "database", "critical" if old > _TOO_OLD_MILLIONS else "warning",
            f"its oldest transaction is {old:.0f} million back, and it stops at 2,147",
            "As postgres: `vacuumdb --all --freeze`.", figures,
        )  # fmt: skip
    if used > _FULL_PERCENT:
        said = f"{health.connections} of {health.connections_max} connections are taken"
        return Result("database", "warning", said, "Who has them? `SELECT * FROM pg_stat_activity`.", figures)
    return Result("database", "ok", "answers", "", figures)
