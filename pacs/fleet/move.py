"""An archive moves from one appliance to another: as to a standby that is promoted, proven before it is.

    checked → paired → all copied while the old one works → both have read their own disks
            → the old one takes nothing more, the rest is copied → equal, by digest, on both sides: the certificate
            → the new one is promoted: it has identity, keys, settings; the old one is fenced by the epoch → selftest

How far it is stands on the two appliances. So it goes on after a kill at any moment, from any workstation. Until the
promotion it can be called off, and the old one goes on as if nothing had been; what fails between the last copy and
the promotion calls off the pause by itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pacs import clock
from pacs.errors import AtWork, PacsError, UsageError
from pacs.fleet.compare import compare, read
from pacs.fleet.inventory import Appliance
from pacs.fleet.node import Node, NodeFailed, plain
from pacs.fleet.status import status_of

Tell = Callable[[str, str], None]

_STANDBY = "the standby"
_LOOK_S = 5.0
#: How long a copy of the database may take, and the end of it [s].
_FOLLOW_S, _PROMOTE_S, _SELFTEST_S, _STATE_S = 12 * 3600.0, 1800.0, 1200.0, 3600.0
#: So many objects may wait when the old one stops; its hand-over copies them.
_LITTLE = 1000
#: So many objects may have come since a node began to read.
_LATE_MAX = 100_000
#: Room that the new one must have beyond what the old one holds.
_SPARE = 1.05


class Move:
    """Moves the archive of one appliance to another. `wait`: waits for so many seconds; `pause_s`: how long the old one
    may take nothing while the rest is copied."""

    def __init__(
        self, old: Node, new: Node, certificate: Path, tell: Tell, wait: Callable[[float], object], pause_s: float
    ) -> None:
        self.old, self.new, self.certificate = old, new, certificate
        self.tell, self.wait, self.pause_s = tell, wait, pause_s

    def run(self) -> None:
        """Do what is left to be done. Raise what is in its way: NodeFailed, Unreachable, DigestMismatch, UsageError."""
        if self._is_over():
            # It may have been ended before its services were started: they are then.
            self.new.pacs("standby", "promote", "--yes", "--json", timeout_s=_PROMOTE_S)
        else:
            if self._role(self.new)["is"] != _STANDBY:
                self._require_possible()
                self._pair()
            self._follow_on()
            self._require_pair()
            self._copy()
            self._hand_over()
            self._promote()
        self.tell(_name(self.new), "selftest")
        self._selftest()

    def call_off(self) -> None:
        """Have the old one go on; the new one stays its standby. Raise UsageError if the new one has taken over."""
        if self._is_over():
            raise UsageError(f"{_name(self.new)} has taken over: it cannot be called off any more.")
        if self._role(self.old).get("fenced"):
            self.old.require("standby", "hand-over", "--cancel")
        self.tell(_name(self.old), "goes on taking images")

    def _require_possible(self) -> None:
        """Raise UsageError with all that is against it; nothing was touched."""
        found = [status_of(node) for node in (self.old, self.new)]
        problems = [f"{each.name}: {each.error}" for each in found if each.error]
        problems += [
            f"{each.name}: {check['name']}: {check['message']}"
            for each in found
            for check in each.checks
            if check["severity"] == "critical"
        ]
        if not problems:
            if found[0].version != found[1].version:
                problems.append(f"{found[0].name} has version {found[0].version}, {found[1].name} {found[1].version}")
            problems += self._against()
        if problems:
            raise UsageError("It cannot be moved; nothing was touched. " + "; ".join(problems) + ".")

    def _against(self) -> list[str]:
        here, there = (node.json("holdings", "state", "--json") for node in (self.old, self.new))
        rooms = [each["room"] for each in self.new.json("volume", "list", "--json") if each["kind"] == "local"]
        disks = {(each["size_bytes"], each["used_bytes"]): each["free_bytes"] or 0 for each in rooms if each}
        free_bytes = sum(disks.values())
        found = []
        if there["objects"]:
            found.append(f"{_name(self.new)} has {there['objects']} objects of its own: it must be an empty one")
        if free_bytes < here["size_bytes"] * _SPARE:
            found.append(f"{_name(self.new)} has room for {free_bytes} bytes, {here['size_bytes']} are to come")
        if self._role(self.old).get("twin") not in (None, _name(self.new)):  # paired by a move that was ended
            found.append(f"{_name(self.old)} has a standby already: `pacs standby status` there")
        return found

    def _pair(self) -> None:
        """Make the new one the standby of the old one."""
        self.tell(_name(self.new), "is paired, and copies the database")
        offered = self.new.require("standby", "offer", *_address(self.new.appliance)).decode()
        done = self.old.pacs("standby", "pair", "-", *_address(self.old.appliance), given=offered)
        if done.exit_code:
            raise NodeFailed(f"`pacs standby pair` ended with {done.exit_code}: {done.said}")
        answer = done.output.decode().strip().splitlines()[-1]
        done = self.new.pacs("standby", "follow", "-", "--yes", timeout_s=_FOLLOW_S, given=answer)
        if done.exit_code:
            raise NodeFailed(f"`pacs standby follow` ended with {done.exit_code}: {done.said}")

    def _follow_on(self) -> None:
        """Have a copy of the database that was cut short made anew; one that is at work yet is waited for."""
        while self._role(self.new).get("step") == "copying":
            self.tell(_name(self.new), "copies the database")
            done = self.new.pacs("standby", "follow", "--yes", timeout_s=_FOLLOW_S)
            if done.exit_code not in (0, AtWork.exit_code):
                raise NodeFailed(f"`pacs standby follow` ended with {done.exit_code}: {done.said}")
            self.wait(_LOOK_S)

    def _require_pair(self) -> None:
        old, new = self._role(self.old), self._role(self.new)
        if (old.get("twin"), new.get("twin")) != (_name(self.new), _name(self.old)):
            raise UsageError(
                f"They are not paired with one another: {_name(self.old)} with {old.get('twin')}, {_name(self.new)} "
                f"with {new.get('twin')}. Have they other names in the inventory than when it began?"
            )

    def _copy(self) -> None:
        """Wait until the new one has nearly all, and both have read it, while the old one works."""
        said = ""
        while not _is_near(found := self._role(self.old)):
            waiting = found["objects"]
            now = f"{waiting['waiting']}{'' if waiting['is_counted'] else ' or more'} objects are to be copied"
            now += plain(f"; {found['away'] or waiting['error']}").rstrip("; ")
            if now != said and not found.get("fenced"):
                self.tell(_name(self.old), now)
                said = now
            if found.get("fenced"):  # a move that was killed later than here
                return
            self.wait(_LOOK_S)
        with ThreadPoolExecutor(max_workers=2) as pool:
            for done in [pool.submit(read, node, self.tell) for node in (self.old, self.new)]:
                done.result()
        for node in (self.old, self.new):  # better now than when the old one has stopped
            lacking = node.json("holdings", "state", "--json", timeout_s=_STATE_S)["lacking"]
            if lacking > _LATE_MAX:
                raise NodeFailed(
                    f"{_name(node)} has not read {lacking} objects as whole. See `pacs repair list` and `pacs volume "
                    "list` there; then give the same command."
                )

    def _hand_over(self) -> None:
        """Stop the old one, and prove that the new one has all of it. What fails has the old one go on."""
        self.tell(_name(self.old), "takes nothing more")
        try:
            self.old.require("standby", "hand-over", "--patience-s", f"{self.pause_s:g}", timeout_s=self.pause_s + 300)
            found = compare(self.old, self.new, self.tell)
            _write(self.certificate, found)
        except BaseException:
            self._go_on()
            raise
        self.tell(_name(self.new), f"holds the same: {self.certificate}")

    def _promote(self) -> None:
        """Have the new one take over: the last step. What fails here may have been done: only it knows."""
        self.tell(_name(self.new), "takes over")
        try:
            self.new.json("standby", "promote", "--yes", "--json", timeout_s=_PROMOTE_S)
        except PacsError:
            self.tell(_name(self.old), "TAKES NOTHING. Go on with the same command, or give it with --call-off.")
            raise

    def _go_on(self) -> None:
        try:
            if self._role(self.old).get("fenced"):  # it has not taken itself back
                self.old.require("standby", "hand-over", "--cancel")
        except PacsError as error:
            self.tell(
                _name(self.old), f"MAY TAKE NOTHING ({error}). Go on with the same command, or give it with --call-off."
            )
        else:
            self.tell(_name(self.old), "goes on taking images")

    def _is_over(self) -> bool:
        """Whether the new one is the archive, by taking over from the old one."""
        found = self._role(self.new)
        return found["is"] == "the archive" and found.get("twin") == _name(self.old)

    def _selftest(self) -> None:
        """Have the new one prove that it works; its services have just been started."""
        ends_s = clock.monotonic_s() + _SELFTEST_S
        while True:
            done = self.new.pacs("selftest", timeout_s=_SELFTEST_S)
            if done.exit_code == 0:
                return
            if clock.monotonic_s() > ends_s:
                raise NodeFailed(f"{_name(self.new)} has taken over, and its selftest does not pass: {done.said}")
            self.wait(_LOOK_S)

    def _role(self, node: Node) -> dict[str, Any]:
        found = node.json("standby", "status", "--json")
        if not isinstance(found, dict) or "is" not in found:
            raise NodeFailed(f"`pacs standby status` on {_name(node)} says something else. Is it another version?")
        return found


def _is_near(status: dict[str, Any]) -> bool:
    """Whether what the new one lacks is copied in a moment: while images come, it never has all."""
    waiting, log_way = status["objects"], status["log"] or {}
    is_little = waiting["is_counted"] and waiting["waiting"] < _LITTLE
    return bool(status["is_level"] or (is_little and log_way.get("is_streaming") and not status["away"]))


def _name(node: Node) -> str:
    return node.appliance.name


def _address(appliance: Appliance) -> list[str]:
    """How the other appliance comes to it."""
    return [
        "--host",
        appliance.peer_host or appliance.host,
        "--port",
        str(appliance.peer_port),
        "--name",
        appliance.name,
    ]


def _write(path: Path, content: bytes) -> None:
    try:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}. Name another.") from error
