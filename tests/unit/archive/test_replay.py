"""Every event that the code writes into the journal is known to the replay, and to docs/reference/journal.md."""

from __future__ import annotations

import ast
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pacs.archive import replay
from pacs.errors import DataTooNew

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "reference" / "journal.md").read_text("utf-8")


_NOUNS = {"volume", "device", "study", "tier", "conflict", "refusal", "patient"}


def _names(node: ast.expr, module: ast.AST) -> list[str]:
    """The event that is appended: a word, or whatever in its module looks like one where it comes in a parameter."""
    if isinstance(node, ast.Constant):
        return [str(node.value)]
    words = [str(each.value) for each in ast.walk(module) if isinstance(each, ast.Constant)]
    return [each for each in words if re.fullmatch("[a-z]+( [a-z]+)+", each) and each.split()[0] in _NOUNS]


def appended() -> set[str]:
    """The events that the code appends: first arguments of `append` of something that is called a journal."""
    found: set[str] = set()
    for path in (ROOT / "pacs").rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "append":
                owner = node.func.value
                name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
                if name == "journal" and node.args:
                    found.update(_names(node.args[0], tree))
    return found


def test_every_event_has_a_handler() -> None:
    written = appended()
    assert {"device add", "conflict resolve"} <= written
    assert written <= replay.EVENTS.keys()


def test_every_event_is_on_the_page() -> None:
    assert set(re.findall(r"^\| `([a-z ]+)` \|", PAGE, re.MULTILINE)) == set(replay.EVENTS)


def at(second: int) -> str:
    return datetime(2026, 11, 22, 8, 0, second, tzinfo=UTC).isoformat()


def test_what_stands_in_the_end() -> None:
    ct = {"name": "ct", "ae_title": "CT1", "host": "192.0.2.7", "port": 104}
    volume = {"volume_id": "7c0e", "name": "big", "tier": 2, "kind": "local", "location": "/srv/big", "options": {}}
    found = replay.read(
        [
            {"at": at(1), "what": "device add", **ct},
            {"at": at(2), "what": "device add", **ct, "name": "mr", "ae_title": "MR1"},
            {"at": at(3), "what": "device change", **ct, "aliases": ["CT2"]},
            {"at": at(4), "what": "device remove", "name": "mr"},
            {"at": at(5), "what": "volume add", **volume, "volume_id": "dead", "name": "another appliance's"},
            {"at": at(5), "what": "restore", "point": "20261122"},
            {"at": at(5), "what": "volume add", **volume},
            {"at": at(6), "what": "volume drain", "volume_id": "7c0e", "name": "big"},
            {"at": at(7), "what": "volume drain", "volume_id": "0001", "name": "tier1"},
            {"at": at(8), "what": "volume undrain", "volume_id": "0001", "name": "tier1"},
            {"at": at(9), "what": "volume set", "volume_id": "7c0e", "name": "big", "scrub_days": 365.0},
            {"at": at(9), "what": "volume set", "volume_id": "0001", "name": "tier1", "scrub_days": 30.0},
            {"at": at(9), "what": "volume set", "volume_id": "0001", "name": "tier1", "scrub_days": None},
        ]
    )
    ((device, since),) = found.standing.devices.values()
    assert (device.name, device.aliases, since.second) == ("ct", ("CT2",), 1)
    states = {volume.name: (volume.tier, volume.state) for volume, _since in found.standing.volumes.values()}
    assert states == {"big": (2, "draining"), "tier1": (1, "active")}
    assert [volume.scrub_days for volume, _since in found.standing.volumes.values()] == [365, None]


def test_a_clock_that_was_set_back_does_not_change_the_order() -> None:
    lines = [
        {"at": at(second), "what": "conflict resolve", "kind": "series", "resolution": "keep", "number": number}
        for number, second in enumerate((5, 3, 9))
    ]
    found = replay.read(lines)
    assert [(line["number"], line["at"].second) for line in found.in_order] == [(0, 5), (1, 5), (2, 9)]


@pytest.mark.parametrize(
    "line",
    [
        {"what": "study teleport"},
        {"what": "device add", "name": "x", "warp_factor": 9},
        {"what": "volume set", "volume_id": "7c0e", "name": "big", "warp_factor": 9},
        {},
    ],
)
def test_what_a_newer_version_wrote_is_refused(line: dict[str, object]) -> None:
    with pytest.raises(DataTooNew, match="newer"):
        replay.read([{"at": at(1), **line}])


def test_a_restore_takes_away_the_volumes_that_are_gone_and_no_others() -> None:
    volume = {"tier": 3, "kind": "s3", "location": "s3://far", "options": {}}
    found = replay.read(
        [
            {"at": at(1), "what": "volume add", **volume, "volume_id": "dead", "name": "dead"},
            {"at": at(2), "what": "volume add", **volume, "volume_id": "bucket", "name": "bucket"},
            {"at": at(3), "what": "restore", "point": "p", "restore_id": "r", "gone": ["dead", "unknown"]},
        ]
    )
    assert list(found.standing.volumes) == ["bucket"]
