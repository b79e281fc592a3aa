"""An upgrade of one appliance after the other, which ends at the first that does not come through it.

    well? → the file is copied, its digest compared → pacs upgrade apply, which restarts it → its record says: passed
          → pacs selftest → the next one

What each step has done stands on the appliance itself: run again after it was killed, it goes on there. One that runs
the version already is passed over.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pacs import clock
from pacs.errors import PacsError, UsageError
from pacs.fleet.errands import Outcome
from pacs.fleet.host_keys import UnknownHostKey
from pacs.fleet.node import Node, NodeFailed, Unreachable, plain
from pacs.fleet.status import status_of

#: How long the slot may take to be written, and a selftest [s].
_APPLY_S, _SELFTEST_S = 3 * 3600.0, 1200.0
#: How often it is looked whether it is back [s].
_LOOK_S = 5.0
_MANIFEST = "manifest.json"

Tell = Callable[[str, str], None]


def version_of(file: Path) -> str:
    """The version that an upgrade file brings, as it says itself; the appliance checks its signature. Raise
    UsageError."""
    try:
        with tarfile.open(file) as archive:
            member = archive.extractfile(_MANIFEST)
            return str(json.loads(member.read(1 << 24) if member else b"")["version"])
    except (OSError, tarfile.TarError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{file} is no upgrade file ({type(error).__name__}). Take pacs-appliance-VERSION.upgrade."
        ) from error


def digest_of(file: Path) -> str:
    """The file's SHA-256 in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class Upgrade:
    """Brings one file to appliances. `wait`: waits for so many seconds; `patience_s`: until one must be back."""

    def __init__(self, file: Path, tell: Tell, wait: Callable[[float], object], patience_s: float) -> None:
        self.file, self.tell, self.wait, self.patience_s = file, tell, wait, patience_s
        self.version, self.digest = version_of(file), digest_of(file)

    def run(self, node: Node) -> Outcome:
        """Upgrade one. What goes wrong is in the answer."""
        name = node.appliance.name
        try:
            return Outcome(name, True, self._run(node))
        except PacsError as failure:
            return Outcome(name, False, str(failure))

    def _run(self, node: Node) -> str:
        record = self._record(node)
        if record and not record["outcome"]:
            self.tell(node.appliance.name, "an upgrade is under way there")
        elif self._running(node) == self.version:
            self._selftest(node)
            return f"runs {self.version} already"
        else:
            self._require_well(node)
            path = self._copy(node)
            self._apply(node, path, record["record_id"] if record else "")
        self._come_back(node)
        self._selftest(node)
        node.shell(f"rm -f -- {shlex.quote(self._path(node))}")
        return f"runs {self.version}"

    def _require_well(self, node: Node) -> None:
        self.tell(node.appliance.name, "is it well?")
        found = status_of(node)
        bad = [f"{each['name']}: {each['message']}" for each in found.checks if each["severity"] == "critical"]
        if found.error or bad:
            raise NodeFailed(f"It is not well, and was left as it is. {found.error or '; '.join(bad)}")

    def _path(self, node: Node) -> str:
        return f"{node.appliance.upload_folder}/pacs-{self.digest[:16]}.upgrade"

    def _copy(self, node: Node) -> str:
        """Have the file there, whole; one that was left by a killed run counts if it is."""
        path = self._path(node)
        if not self._has(node, path):
            self.tell(node.appliance.name, f"copying {self.file.name}")
            node.put(self.file, path)
            if not self._has(node, path):
                raise NodeFailed(f"The file did not come there as it is here. Is there room at {path}?")
        return path

    def _has(self, node: Node, path: str) -> bool:
        return node.shell(f"sha256sum -- {shlex.quote(path)}", _APPLY_S).output.startswith(self.digest.encode())

    def _apply(self, node: Node, path: str, record_before: str) -> None:
        self.tell(node.appliance.name, "applying; it restarts then")
        with contextlib.suppress(Unreachable):  # it restarts: whether it took the file, its record says
            node.require("upgrade", "apply", path, timeout_s=_APPLY_S)
        node.close()
        ends_s = clock.monotonic_s() + self.patience_s
        while True:
            found = self._record_or_none(node)
            if found is not None and found.get("record_id") not in ("", None, record_before):
                return
            if clock.monotonic_s() > ends_s:
                raise NodeFailed("It took the file and says nothing of it since. Look at its screen.")
            self.wait(_LOOK_S)

    def _come_back(self, node: Node) -> None:
        """Wait until its record has an end. Raise NodeFailed if that is not the version it was to have."""
        self.tell(node.appliance.name, "waiting for it")
        ends_s = clock.monotonic_s() + self.patience_s
        while not (record := self._record_or_none(node)) or not record["outcome"]:
            if clock.monotonic_s() > ends_s:
                raise NodeFailed(f"It is not back after {self.patience_s / 60:.0f} minutes. Look at its screen.")
            self.wait(_LOOK_S)
        if record["outcome"] != "passed":
            raise NodeFailed(
                plain(f"The upgrade did not pass, and it works as before: {record['outcome']}: {record['why']}")
            )
        if self._running(node) != self.version:
            raise NodeFailed(f"It passed an upgrade, and does not run {self.version}. See `pacs upgrade status` there.")

    def _selftest(self, node: Node) -> None:
        self.tell(node.appliance.name, "selftest")
        node.require("selftest", timeout_s=_SELFTEST_S)

    def _running(self, node: Node) -> str:
        return str(_status(node)["running"]["version"])

    def _record(self, node: Node) -> dict[str, Any] | None:
        found: dict[str, Any] | None = _status(node)["record"]
        return found

    def _record_or_none(self, node: Node) -> dict[str, Any] | None:
        """The same; None also while it cannot be asked."""
        try:
            return self._record(node)
        except UnknownHostKey:
            raise
        except (Unreachable, NodeFailed):
            node.close()
            return None


def _status(node: Node) -> dict[str, Any]:
    """`pacs upgrade status --json`, of a version that has it. Raise NodeFailed."""
    found = node.json("upgrade", "status", "--json")
    try:
        record = found["record"]
        if not isinstance(found["running"]["version"], str) or not (
            record is None or {"outcome", "why"} <= set(record)
        ):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise NodeFailed(
            "`pacs upgrade status` there says something else than expected. Is it another version?"
        ) from None
    return dict(found)
