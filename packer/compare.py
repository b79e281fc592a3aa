"""`python -m packer.compare A B`: what differs between two builds, and whether it may.

A and B are system disks (.qcow2, .vhdx, raw) or their manifests (.tree). What may differ between two builds of the
same inputs stands in one table here, each with its reason: docs/reference/reproducible.md shows it. Ends with 0 when
nothing else differs, 1 when something does, 2 when one can't be read.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packer.errors import BuildError
from packer.rootfs import Entry
from packer.tree import tree_of

_SHOWN = 200


@dataclass(frozen=True)
class Justified:
    """Paths (a regular expression for the whole of one) whose content may differ, and why."""

    pattern: str
    why: str


JUSTIFIED: tuple[Justified, ...] = (
    Justified(
        r"/etc/shadow",
        "the day on which each account was made; the same for two builds of one day. No account has a password.",
    ),
)


@dataclass(frozen=True)
class Difference:
    """One path that is not the same in both. `why` is empty if nothing justifies it."""

    path: str
    what: str
    why: str = ""


def differences(ours: Sequence[Entry], theirs: Sequence[Entry]) -> list[Difference]:
    """What differs between two manifests, by path."""
    left, right = {entry.path: entry for entry in ours}, {entry.path: entry for entry in theirs}
    found = []
    for path in sorted(left.keys() | right.keys()):
        one, other = left.get(path), right.get(path)
        if one is None or other is None:
            found.append(Difference(path, "only in the second" if one is None else "only in the first"))
        elif (one.mode, one.uid, one.gid) != (other.mode, other.uid, other.gid):
            found.append(Difference(path, f"{_owner(one)} and {_owner(other)}"))
        elif (one.digest, one.size_bytes) != (other.digest, other.size_bytes):
            found.append(Difference(path, "content", _reason(path)))
    return found


def _owner(entry: Entry) -> str:
    return f"{entry.mode:06o} {entry.uid}:{entry.gid}"


def _reason(path: str) -> str:
    return next((row.why for row in JUSTIFIED if re.fullmatch(row.pattern, path)), "")


def reference() -> str:
    """The table of what may differ, for docs/reference/reproducible.md."""
    rows = [f"| `{row.pattern.replace('|', '&#124;')}` | {row.why} |" for row in JUSTIFIED] or ["| nothing | |"]
    return "\n".join(["| path | why |", "|---|---|", *rows]) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare two builds; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m packer.compare", description=__doc__)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    options = parser.parse_args(arguments)
    try:
        ours, theirs = tree_of(options.first), tree_of(options.second)
    except (BuildError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    found = differences(ours, theirs)
    open_ones = [each for each in found if not each.why]
    for each in found[:_SHOWN]:
        print(f"{each.path}: {each.what}{f' (may be: {each.why})' if each.why else ''}")
    if len(found) > _SHOWN:
        print(f"... and {len(found) - _SHOWN} more")
    justified = len(found) - len(open_ones)
    print(f"{len(ours)} entries and {len(theirs)}: {len(open_ones)} differ, {justified} more as they may")
    return 1 if open_ones else 0


if __name__ == "__main__":
    sys.exit(main())
