"""Are the owners of the vaults here connected, and is there room for what they send?"""

from __future__ import annotations

from pacs import clock
from pacs.backup.vaults import Vault, VaultFiles
from pacs.checks.check import ORDER, Ground, Result, Severity
from pacs.errors import PacsError

#: An owner that is away for longer than the first is told of; beyond the second a person looks [s].
AWAY_S, TOO_LONG_S = 3600.0, 24 * 3600.0
#: Less room than this is little [bytes].
LITTLE_BYTES = 20 << 30
_HINT = "`pacs vault list` says more; docs/operate/vault.md."


def run(subject: Ground) -> Result:
    """Look at each vault of this node."""
    files = VaultFiles(subject.settings.data)
    try:
        found = [_judged(each, files.seen_at_s(each.name)) for each in files.vaults()]
    except PacsError as error:
        return Result("vault", "critical", str(error), _HINT)
    if not found:
        return Result("vault", "ok", "no other appliance's repository is kept here")
    severity = max((severity for severity, _line in found), key=ORDER.index)
    return Result("vault", severity, "; ".join(line for _severity, line in found), "" if severity == "ok" else _HINT)


def _judged(vault: Vault, seen_at_s: float | None) -> tuple[Severity, str]:
    if vault.is_paused:
        return "warning", f"{vault.name} is paused: nothing is kept"
    try:
        free_bytes = vault.open().free_bytes()
    except PacsError as error:
        return "critical", f"{vault.name}: {error}"
    return judged(vault.name, None if seen_at_s is None else clock.now().timestamp() - seen_at_s, free_bytes)


def judged(name: str, away_s: float | None, free_bytes: int) -> tuple[Severity, str]:
    """What is to be said of a vault whose owner was last connected so long ago; None: never."""
    room = f"{free_bytes / 1e9:.0f} GB are free"
    if away_s is None:
        return "warning", f"{name}: its owner was never connected; {room}"
    if away_s > AWAY_S:
        severity: Severity = "critical" if away_s > TOO_LONG_S else "warning"
        return severity, f"{name}: its owner has not been connected for {away_s / 3600:.0f} hours; {room}"
    return ("warning" if free_bytes < LITTLE_BYTES else "ok"), f"{name}: its owner is connected; {room}"
