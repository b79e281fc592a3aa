"""What Lynis is told to leave out stands in the table of deviations, and nothing else does."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PROFILE = REPOSITORY / "roles/hardening/tree/etc/lynis/custom.prf"


def test_each_test_that_is_left_out_has_its_reason_in_the_profile_and_in_the_table() -> None:
    text = PROFILE.read_text("utf-8")
    page = (REPOSITORY / "docs/reference/hardening.md").read_text("utf-8").partition("## Deviations")[2]
    rows = [row for row in page.splitlines() if row.startswith("|")]
    told = {name for row in rows for name in re.findall(r"\b[A-Z]{3,4}-\d{4}\b", row.split("|")[1])}
    assert told == {name.partition(":")[0] for name in re.findall(r"^skip-test=(\S+)$", text, re.M)}
    assert all(len(row.split("|")[3].strip()) > 10 for row in rows[2:])
    before = ""
    for line in text.splitlines():
        assert not line.startswith("skip-test=") or before.startswith(("#", "skip-test=")), line
        before = line
