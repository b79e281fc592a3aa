"""The settings table: where a value comes from, and what a wrong one gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from pacs.errors import SettingsError
from pacs.model import dataset
from pacs.settings import load, reference

ROOT = Path(__file__).parents[2]


def _write(data: Path, text: str) -> None:
    (data / "config").mkdir()
    (data / "config" / "pacs.toml").write_text(text)


def test_the_environment_stands_above_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path, 'ae_title = "FILE"\nsettle_s = 7\n')
    monkeypatch.setenv("PACS_AE_TITLE", "ENV")
    settings = load(tmp_path)
    assert (settings.ae_title, settings.settle_s, settings.associations_max) == ("ENV", 7, 64)


@pytest.mark.parametrize(
    "text, part",
    [("settle_s = -1", "settle_s"), ("no_such = 1", "no_such"), ("ae_title = 'A", "cannot be read")],
)
def test_a_wrong_setting_is_named_with_its_file(tmp_path: Path, text: str, part: str) -> None:
    _write(tmp_path, text)
    with pytest.raises(SettingsError, match=part) as raised:
        load(tmp_path)
    assert "pacs.toml" in str(raised.value)


def test_the_reference_page_is_this_table() -> None:
    assert (ROOT / "docs" / "reference" / "settings.md").read_text().endswith(reference())


def test_native_pixel_data_as_long_as_their_length_can_say_are_taken(tmp_path: Path) -> None:
    longest = 0xFFFFFFFE  # PS3.5 7.1.1; the rest of the object comes on top, deflated or not
    assert load(tmp_path).object_size_bytes_max > longest + (64 << 20)
    assert longest + (64 << 20) < dataset.INFLATED_SIZE_BYTES_MAX
