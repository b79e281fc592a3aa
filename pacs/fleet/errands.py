"""What is done on each appliance: the nightly drill, a support bundle that is fetched."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pacs.errors import PacsError
from pacs.fleet.node import Node, NodeFailed, plain
from pacs.model.drill_outcome import words_of

_GZIP = b"\x1f\x8b"
_BUNDLE_S = 900.0


@dataclass(frozen=True)
class Outcome:
    """What came of it on an appliance, in words."""

    name: str
    succeeded: bool
    message: str


def drill(node: Node) -> Outcome:
    """Run the drill there, and wait for it however long it takes. What goes wrong is in the answer."""
    name = node.appliance.name
    try:
        done = node.pacs("drill", "run", "--json", timeout_s=None)
        try:
            found = json.loads(done.output)
            said = f"it could not be done: {found['error']}" if found["error"] else words_of(found)
            return Outcome(name, done.exit_code == 0, plain("; ".join([said, *map(str, found["problems"])])))
        except (ValueError, KeyError, TypeError):
            raise NodeFailed(f"`pacs drill run` ended with {done.exit_code}: {done.said}") from None
    except PacsError as failure:
        return Outcome(name, False, str(failure))


def fetch_bundle(node: Node, folder: Path, at: datetime) -> Outcome:
    """Have a support bundle made there, and write it into a folder, whole or not at all."""
    name = node.appliance.name
    try:
        content = node.require("support-bundle", timeout_s=_BUNDLE_S)
        if not content.startswith(_GZIP):
            raise NodeFailed("`pacs support-bundle` there gave no archive. Is it another version?")
        return Outcome(name, True, str(_write(folder, bundle_name(name, at), content)))
    except PacsError as failure:
        return Outcome(name, False, str(failure))
    except OSError as failure:
        return Outcome(name, False, f"{folder} cannot be written to: {failure.strerror}.")


def bundle_name(appliance: str, at: datetime) -> str:
    """The file that an appliance's bundle of that moment is in."""
    return f"{re.sub('[^A-Za-z0-9.-]', '_', appliance).lstrip('.')}-{at:%Y%m%dT%H%M%SZ}.tar.gz"


def _write(folder: Path, name: str, content: bytes) -> Path:
    unfinished = folder / f".{name}"
    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    unfinished.rename(folder / name)
    return folder / name
