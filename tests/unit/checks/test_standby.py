"""What is said of a standby."""

from __future__ import annotations

import pytest

from pacs.backup.shipping import Lag
from pacs.backup.standby_files import Twin
from pacs.backup.standby_status import AtArchive, AtStandby
from pacs.backup.standby_volumes import Standby
from pacs.checks.standby import judged, judged_at_standby
from pacs.index.standby import Receiving, Stream

TWIN = Twin("second", "", "pacs", "192.0.2.12", 22, "", "", "", "", ())
KNOWN = Standby("second", ("v",), TWIN)
FOLLOWS = Stream(True, 0, 0.0, 0, "reserved")
COMES = Receiving(True, 1.0, 0, 1.0)
NOTHING = Lag(0, None, True)


@pytest.mark.parametrize(
    ("found", "absent", "severity", "words"),
    [
        (AtArchive(NOTHING, FOLLOWS), "", "ok", "has all"),
        (AtArchive(Lag(7, 10.0, True), FOLLOWS), "", "ok", "7 objects wait"),
        (AtArchive(Lag(7, 200.0, True), FOLLOWS), "", "warning", "7 objects wait"),
        (AtArchive(Lag(10_000, 2000.0, False), FOLLOWS), "", "critical", "10000 or more"),
        (AtArchive(NOTHING, FOLLOWS), "It does not answer.", "warning", "it is away. It does not answer."),
        (
            AtArchive(NOTHING, Stream(False, None, None, 5 << 20, "reserved")),
            "",
            "warning",
            "5 MiB of the log are kept",
        ),
        (AtArchive(NOTHING, Stream(False, None, None, 0, "lost")), "", "critical", "copies anew"),
        (AtArchive(NOTHING, None), "", "critical", "copies anew"),
        (AtArchive(NOTHING, Stream(True, 2 << 30, 9.0, 0, "reserved")), "", "warning", "KiB behind"),
        (AtArchive(Lag(1, 1.0, True, "Its disk is full."), FOLLOWS), "", "warning", "Its disk is full."),
    ],
)
def test_a_standby_that_lacks_something_is_told_of(found: AtArchive, absent: str, severity: str, words: str) -> None:
    said, line = judged(KNOWN, found, absent)
    assert (said, words in line) == (severity, True), line


@pytest.mark.parametrize(
    ("found", "severity", "words"),
    [
        (AtStandby("follows", COMES, NOTHING, 5.0), "ok", "follows and has all"),
        (AtStandby("follows", COMES, Lag(7, 200.0, True), 5.0), "warning", "lacks 7 objects"),
        (AtStandby("follows", COMES, Lag(7, 2000.0, False), 5.0), "critical", "lacks 7 or more objects"),
        (AtStandby("follows", COMES, None, None), "warning", "cannot be told"),
        (AtStandby("follows", Receiving(False, 60.0, 0, 60.0), NOTHING, 5.0), "critical", "log does not come"),
        (AtStandby("copying", None, None, None), "critical", "not come over whole"),
    ],
)
def test_a_standby_says_how_it_is(found: AtStandby, severity: str, words: str) -> None:
    said, line = judged_at_standby(found)
    assert (said, words in line) == (severity, True), line
