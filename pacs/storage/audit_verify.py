"""Whether the audit log is what was written: its chain, the heads that were kept elsewhere, its copies on volumes."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pacs.errors import PacsError
from pacs.model.audit_chain import Chain, Head, Verified, parsed
from pacs.storage.audit import AuditLog, first_of, whole
from pacs.storage.audit_copies import copy_on, heads_on
from pacs.storage.audit_signing import verify_with
from pacs.storage.kinds import Volume


@dataclass
class Verdict:
    """What was found. differing: of copies that say otherwise, in words; unread: those that could not be read."""

    chain: Verified
    heads: int = 0
    copies: int = 0
    differing: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether nothing was changed, as far as can be seen."""
        return self.chain.fault is None and not self.differing


def verify(data: Path, heads: Collection[Head] = (), volumes: Iterable[Volume] = ()) -> Verdict:
    """Look at all of the log. Raise BackupError if the key of its signatures cannot be read."""
    audit, known = AuditLog(data), list(heads)
    copies, unread = {}, []
    for volume in volumes:
        try:
            copies[volume.location] = copy_on(volume)
            known += heads_on(volume)
        except PacsError as error:
            unread.append(f"{volume.location}: {error}")
    first = first_of(audit.segments()[0].name) if audit.segments() else 1
    # A head that was named must be met; of those on volumes the expired are passed by.
    known = [each for each in known if each.number >= first or each in heads]
    chain = Chain(known, verify_with(data)).run(audit.lines())
    verdict = Verdict(chain, len(known), len(copies), unread=unread)
    # Read after the copies were: what was written meanwhile is ours alone.
    ours = {path.name: path.read_bytes() for path in audit.segments()}
    for where, theirs in copies.items():
        problem = differing(ours, theirs)
        if problem is not None:
            verdict.differing.append(f"{where}: {problem}")
    return verdict


def differing(ours: dict[str, bytes], theirs: dict[str, bytes]) -> str | None:
    """The first line where a copy says something that ours does not; None if it is the beginning of ours."""
    first = min(map(first_of, ours), default=0)
    for name in sorted(theirs):
        content = whole(theirs[name])
        if first_of(name) < first or (name in ours and ours[name].startswith(content)):
            continue  # expired here; or the same
        if name not in ours:
            return f"has line {first_of(name)} and those after it, which are not here"
        return _first_line(ours[name].splitlines(), content.splitlines())
    return None


def _first_line(ours: list[bytes], theirs: list[bytes]) -> str:
    for number, line in enumerate(theirs):
        if number >= len(ours) or ours[number] != line:
            values = parsed(line)
            name = f"line {values['n']}" if values else f"its {number + 1}th line"
            return f"says something else from {name} on" if number < len(ours) else f"has {name}, which is not here"
    return "is another"
