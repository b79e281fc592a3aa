"""Whether two appliances hold the same: each reads its own bytes, the first signs that they are equal."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from pacs.errors import DigestMismatch
from pacs.fleet.node import Node, NodeFailed

#: To say what was read: a sort of all digests [s].
_STATE_S = 3600.0


def read(node: Node, tell: Callable[[str, str], None]) -> None:
    """Have a node read all that it has not read yet, however long it takes. Raise NodeFailed, Unreachable."""
    name = node.appliance.name
    tell(name, "reading its disks")
    tell(name, node.require("holdings", "read", timeout_s=None).decode("utf-8", "replace").strip())


def compare(one: Node, other: Node, tell: Callable[[str, str], None]) -> bytes:
    """The certificate, signed by the first. Raise DigestMismatch if they are not equal; NodeFailed, Unreachable."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        for done in [pool.submit(read, node, tell) for node in (one, other)]:
            done.result()
    said = json.dumps(other.json("holdings", "state", "--json", timeout_s=_STATE_S))
    answer = one.pacs("holdings", "certify", "-", timeout_s=_STATE_S, given=said)
    if answer.exit_code == DigestMismatch.exit_code:
        raise DigestMismatch(f"There is no certificate: {answer.said.removeprefix('pacs: ')}")
    if answer.exit_code:
        raise NodeFailed(f"`pacs holdings certify` ended with {answer.exit_code}: {answer.said}")
    return answer.output
