"""A volume's identity file: made once, read by every version, refused when it is not ours to touch."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pacs.errors import DataTooNew, PacsError, VolumeError, VolumeMissing
from pacs.storage.volume import (
    FORMAT,
    IDENTITY_FILE,
    appliance_ids,
    create_identity,
    former_appliances,
    read_identity,
    succeed,
)


def write(root: Path, content: object) -> None:
    (root / IDENTITY_FILE).write_text(content if isinstance(content, str) else json.dumps(content))


GOOD = {
    "format": 1,
    "appliance_id": "00000000-0000-4000-8000-000000000001",
    "volume_id": "00000000-0000-4000-8000-000000000002",
    "roles": ["tier1"],
    "created": "2026-01-01T00:00:00+00:00",
}


def test_what_was_made_is_read(tmp_path: Path) -> None:
    made = create_identity(tmp_path, ("tier1", "tier2"), GOOD["appliance_id"])  # type: ignore[arg-type]
    assert read_identity(tmp_path) == made
    assert made.appliance_id == GOOD["appliance_id"]
    with pytest.raises(FileExistsError):
        create_identity(tmp_path, ("tier1",))
    assert read_identity(tmp_path) == made


def test_no_volume_is_not_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(VolumeMissing):
        read_identity(tmp_path)
    with pytest.raises(VolumeMissing):
        read_identity(tmp_path / "nowhere")


@pytest.mark.parametrize("more", [{}, {"version": "2.1.0"}, {"encryption": "luks2"}, {"roles": 5, "volume_id": None}])
def test_a_newer_format_is_refused_whatever_else_is_in_it(tmp_path: Path, more: dict[str, object]) -> None:
    write(tmp_path, {**GOOD, "format": FORMAT + 1, **more})
    before = (tmp_path / IDENTITY_FILE).read_bytes()
    with pytest.raises(DataTooNew) as caught:
        read_identity(tmp_path)
    assert caught.value.exit_code == 6
    image = "Use the image of version 2.1.0" if "version" in more else "Boot the image that wrote it"
    assert image in str(caught.value)
    assert (tmp_path / IDENTITY_FILE).read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", "null", "5", "\x00" * 200, {}, {**GOOD, "volume_id": "x"}, {**GOOD, "volume_id": 5},
        {**GOOD, "appliance_id": None}, {**GOOD, "format": None}, {**GOOD, "format": "one"}, {**GOOD, "format": 0},
        {**GOOD, "format": [1]}, '{"format": 1e999}', '{"format": NaN}', {**GOOD, "roles": "tier1"},
        {**GOOD, "roles": []}, {**GOOD, "roles": [1]}, {**GOOD, "roles": {"tier1": 1}},
        {key: value for key, value in GOOD.items() if key != "created"},
    ],
)  # fmt: skip
def test_a_damaged_file_is_a_volume_error_that_names_it(tmp_path: Path, content: object) -> None:
    write(tmp_path, content)
    with pytest.raises(VolumeError) as caught:
        read_identity(tmp_path)
    assert not isinstance(caught.value, VolumeMissing), "a damaged one must not be taken for a blank one"
    assert str(tmp_path) in str(caught.value)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=80) | st.recursive(st.none() | st.integers() | st.floats() | st.text(max_size=5),
       lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list(GOOD)), inner)).map(
           lambda value: json.dumps(value).encode()))  # fmt: skip
def test_any_content_raises_only_errors_of_the_tree(tmp_path: Path, content: bytes) -> None:
    (tmp_path / IDENTITY_FILE).write_bytes(content)
    with contextlib.suppress(PacsError):
        read_identity(tmp_path)


def test_an_appliance_that_goes_on_with_anothers_archive_knows_whose_it_was(tmp_path: Path) -> None:
    own = create_identity(tmp_path, ("state",)).appliance_id
    (tmp_path / "config").mkdir()
    first, second = GOOD["appliance_id"], GOOD["volume_id"]
    assert appliance_ids(tmp_path) == {own}
    for each in (first, second, first, own):
        succeed(tmp_path, each)
    assert former_appliances(tmp_path) == [first, second]
    assert appliance_ids(tmp_path) == {own, first, second}
    (tmp_path / "config" / "former-appliances.json").write_text("[1")
    with pytest.raises(VolumeError, match="Restore it"):
        appliance_ids(tmp_path)
