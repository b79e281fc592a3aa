"""The text on the VM's own display: where the appliance is, how it is, and what to do next.

Whoever stands before the display may be anybody: no patient's data stands on it, and no secret.
"""

from __future__ import annotations

import json
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pacs.machine import access
from pacs.machine.commands import MachineError, output, run
from pacs.machine.storage import Answer
from pacs.storage import durable
from pacs.storage.trial import trial_at

ISSUE = Path("/run/issue.d/pacs.issue")
TRIAL_NOTE = Path("/run/pacs-screen/trial")
REFUSAL = Path("/run/pacs-machine/refusal")
_CLEAR = "\x1b[H\x1b[2J\x1b[3J"
_WIDTH = 78
_CHECK_TIMEOUT_S = 60
_GIB = 1 << 30


@dataclass(frozen=True)
class Check:
    """One line of `pacs check --json`."""

    name: str
    severity: str
    message: str
    hint: str = ""


@dataclass(frozen=True)
class Facts:
    """All that the screen tells. checks: None if they could not be had."""

    version: str
    host_name: str
    addresses: tuple[str, ...]
    fingerprint: str
    storage: Answer | None
    checks: tuple[Check, ...] | None
    failed_units: tuple[str, ...] = ()
    #: That this is a trial copy, in words; empty if it is none.
    trial: str = ""
    #: Why this version does not use the data that are here.
    refusal: str = ""


def compose(facts: Facts) -> str:
    """The text, plain, in lines of at most 78 characters."""
    lines = [f"PACS appliance {facts.version}    {facts.host_name}", ""]
    if facts.trial:
        lines += [*_points((f"TRIAL COPY: {facts.trial}. What it takes in is backed up nowhere.",)), ""]
    lines += _where(facts)
    if facts.storage is None:
        lines += ["", "Starting: looking for the volumes ..."]
    elif not facts.storage.ready:
        lines += ["", "THE STORAGE IS NOT READY. No images are taken.", *_points(facts.storage.problems)]
    else:
        lines += ["", *_health(facts)]
        lines += _points(facts.storage.notes)
    if facts.storage and facts.storage.offered:
        lines += ["", "Blank disks that are not used (to have more room, enlarge a volume's own disk):"]
        lines += [f"  {path}  {size_bytes / _GIB:.0f} GiB" for path, size_bytes in facts.storage.offered]
    return "\n".join(lines) + "\n\n"


def _where(facts: Facts) -> list[str]:
    if not facts.addresses:
        return ["No network address. Is the network card connected, and is there DHCP?"]
    urls = "  ".join(f"https://{f'[{address}]' if ':' in address else address}/" for address in facts.addresses)
    lines = [f"  Web     {urls}", f"  DICOM   {facts.addresses[0]}  ports 104 and 11112  AE title PACS"]
    if facts.fingerprint:
        lines += [f"  SSH     {access.ADMINISTRATOR}@{facts.addresses[0]}", f"          {facts.fingerprint}"]
    return lines


def _health(facts: Facts) -> list[str]:
    if facts.refusal:
        return ["THIS VERSION DOES NOT START. No images are taken.", *_points((facts.refusal,))]
    if facts.failed_units:
        return _points(tuple(f"{unit} failed. See: journalctl -b -u {unit}" for unit in facts.failed_units))
    if facts.checks is None:
        return ["The service does not answer yet."]
    bad = [check for check in facts.checks if check.severity != "ok"]
    # What a backup is worth is to be seen by whoever passes by.
    proven = [f"{check.message}." for check in facts.checks if check.name == "drill" and check.severity == "ok"]
    if not bad:
        return [f"Healthy: all {len(facts.checks)} checks passed.", *_points(tuple(proven))]
    seen = [check for check in bad if check.severity != "unknown"]
    words = [f"{check.severity.upper()} {check.name}: {check.message} {check.hint}" for check in seen]
    if len(seen) < len(bad):
        words.append(f"{len(bad) - len(seen)} checks could not be made without the database.")
    return _points((*words, *proven))


def _points(texts: tuple[str, ...]) -> list[str]:
    """Each text as a point, wrapped."""
    lines = []
    for text in texts:
        row = "  *"
        for word in text.split():
            if len(row) + 1 + len(word) > _WIDTH and row.strip():
                lines.append(row)
                row = "   "
            row += f" {word}"
        lines.append(row)
    return lines


def gather(version: str, storage: Answer | None, pacs: str, state: Path) -> Facts:
    """What this machine has to tell. `pacs`: the program to ask for its checks, as user pacs. state: its volume."""
    ready = storage is not None and storage.ready
    trial = trial_at(state) if ready else None
    return Facts(
        version=version,
        host_name=socket.gethostname(),
        addresses=addresses(json.loads(output("ip", "-json", "address", "show", "up"))),
        fingerprint=access.fingerprint(access.Keys()),
        storage=storage,
        checks=_ask_checks(pacs) if ready else None,
        failed_units=_failed_units() if ready else (),
        trial=trial.words if trial else "",
        refusal=REFUSAL.read_text("utf-8").strip() if REFUSAL.exists() else "",
    )


def addresses(interfaces: list[dict[str, Any]]) -> tuple[str, ...]:
    """Addresses that others can reach, IPv4 first, out of `ip -json address`."""
    found = [
        (one["family"], one["local"])
        for interface in interfaces
        for one in interface.get("addr_info", ())
        if one.get("scope") == "global"
    ]
    return tuple(address for _, address in sorted(found))


def show(text: str, issue: Path = ISSUE) -> None:
    """Put the text on the display, if it is another one than before."""
    # agetty replaces what stands behind a backslash, and no text of ours wants that.
    content = (_CLEAR + text.replace("\\", "\\\\")).encode("ascii", "replace")
    if issue.exists() and issue.read_bytes() == content:
        return
    issue.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    durable.replace_file(issue, content, 0o644)
    run("agetty", "--reload", accept=range(256))


def note_trial(words: str, note: Path = TRIAL_NOTE) -> None:
    """Leave a word for the prompts of those who work here, while this is a trial copy."""
    if words:
        note.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        durable.replace_file(note, f"{words}\n".encode(), 0o644)
    else:
        note.unlink(missing_ok=True)


def _ask_checks(pacs: str) -> tuple[Check, ...] | None:
    command = ["setpriv", "--reuid=pacs", "--regid=pacs", "--init-groups", "--", pacs, "check", "--json"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_CHECK_TIMEOUT_S).stdout
        return tuple(
            Check(str(one["name"]), str(one["severity"]), str(one["message"]), str(one.get("hint") or ""))
            for one in json.loads(said)
        )
    except (subprocess.TimeoutExpired, ValueError, KeyError, TypeError, OSError):
        return None


def _failed_units() -> tuple[str, ...]:
    try:
        listed = output("systemctl", "list-units", "--state=failed", "--plain", "--no-legend", "--no-pager")
    except MachineError:
        return ()
    return tuple(line.split()[0] for line in listed.splitlines() if line.strip())
