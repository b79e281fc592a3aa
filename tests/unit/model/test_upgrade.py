"""What an upgrade file says of itself, and whether a node may take it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pacs.model.upgrade import Manifest, Node, System, decoded, encoded, order_of, problem_of_data, problems

_HERE = System("1.2.0", 3, 17)
_MANIFEST = Manifest("1.3.0", 4, 17, "2026-01-01T00:00:00Z", 4 << 20, 100, "aa", ((0, "ab"), (2, "cd")))
_NODE = Node(_HERE, slot_bytes=8 << 20, cluster_bytes=10**9, free_bytes=10**10)


def test_a_manifest_comes_back_as_it_was_written() -> None:
    assert decoded(encoded(_MANIFEST)) == _MANIFEST


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"pieces": [[2, "cd"], [0, "ab"]]},
        {"pieces": [[4, "ab"]]},
        {"pieces": [[-1, "ab"]]},
        {"size_bytes": 1000},
        {"schema": None, "pieces": 3},
    ],
)
def test_a_manifest_that_cannot_be_right_is_none(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        decoded(json.dumps({**json.loads(encoded(_MANIFEST)), **change}).encode())
    values = json.loads(encoded(_MANIFEST))
    del values["schema"]
    with pytest.raises(ValueError, match="incomplete"):
        decoded(json.dumps(values).encode())


def test_versions_are_sorted_by_their_numbers() -> None:
    assert sorted(["1.10.0", "1.9.3", "1.9.12"], key=order_of) == ["1.9.3", "1.9.12", "1.10.0"]


def test_a_newer_version_is_taken() -> None:
    assert problems(_MANIFEST, _NODE) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": "1.1.0", "schema": 3}, "--allow-older"),
        ({"version": "1.2.0", "schema": 3}, "--again"),
        ({"schema": 2, "version": "1.0.0"}, "Use the image of version 1.2.0"),
        ({"postgresql": 18}, "has PostgreSQL 18 only"),
        ({"size_bytes": 16 << 20}, "Replace the system disk"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_to_do(change: dict[str, object], says: str) -> None:
    found = problems(replace(_MANIFEST, **change), _NODE)  # type: ignore[arg-type]
    assert len(found) == 1
    assert says in found[0]


def test_what_is_meant_is_taken() -> None:
    assert problems(replace(_MANIFEST, version="1.1.0", schema=3), _NODE, allow_older=True) == []
    assert problems(replace(_MANIFEST, version="1.2.0", schema=3), _NODE, again=True) == []


def test_older_by_a_persons_word_is_still_not_older_than_the_data() -> None:
    assert problems(replace(_MANIFEST, version="1.0.0", schema=2), _NODE, allow_older=True)


def test_room_is_needed_only_for_a_copy_that_is_made() -> None:
    tight = replace(_NODE, free_bytes=10**9)
    assert "Enlarge the disk" in problems(_MANIFEST, tight)[0]
    assert problems(replace(_MANIFEST, schema=3), tight) == []


def test_data_of_a_newer_version_are_refused_by_its_name() -> None:
    assert problem_of_data(_HERE, System("1.3.0", 4, 17)) == ""
    assert "image of version 1.2.0" in problem_of_data(_HERE, System("1.1.0", 2, 17))
    assert "image of version 1.2.0" in problem_of_data(_HERE, System("1.2.1", 3, 16))
