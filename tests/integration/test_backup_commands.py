"""`pacs backup repository` and `pacs backup keys`, as a person types them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pacs.backup.keys import master_key

Pacs = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def data(new_instance: Callable[[], Path]) -> Path:
    return new_instance()


@pytest.fixture
def pacs(data: Path) -> Pacs:
    def run(*words: str, given: str | None = None, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "pacs.cli.main", "--data", str(data), "backup", *words],
            capture_output=True, text=True, input=given,
        )  # fmt: skip
        assert done.returncode == code, done
        return done

    return run


def test_a_repository_is_added_looked_at_changed_and_removed(pacs: Pacs, data: Path, tmp_path: Path) -> None:
    assert "There is none" in pacs("repository", "list").stdout
    place = tmp_path / "usb"
    place.mkdir()
    assert "disk of the system" in pacs("repository", "add", "usb", "--place", str(place), code=2).stderr
    assert list(place.iterdir()) == []
    added = pacs("repository", "add", "usb", "--place", str(place), "--on-system-disk", "--window", "22:00-06:00",
                 "--bandwidth", "2.5", "--keep", "3").stdout  # fmt: skip
    assert "recovery sheet" in added and "NOT WELL" not in added
    assert {path.name for path in place.iterdir()} == {"incoming", "keyring.json.bin", "repository.json", "volume.json"}
    (listed,) = json.loads(pacs("repository", "list", "--json").stdout)
    assert (listed["name"], listed["kind"], listed["place"], listed["problem"]) == ("usb", "local", str(place), "")
    assert (listed["windows"], listed["bandwidth_bytes_per_s"], listed["keep_full"]) == (["22:00-06:00"], 2_500_000, 3)
    assert listed["lag"] == {"objects": 0, "oldest_s": None, "is_counted": True}
    pacs("repository", "set", "usb", "--window", "always", "--bandwidth", "0")
    shown = json.loads(pacs("repository", "show", "usb", "--json").stdout)
    assert (shown["windows"], shown["bandwidth_bytes_per_s"], shown["keep_full"]) == ([], None, 3)
    assert shown["holdings"]["copies"] == 0
    assert "the recovery sheet opens it" in pacs("repository", "verify").stdout
    everything = pacs("repository", "verify", "--everything").stdout  # nobody has made a backup yet
    assert everything.count("no backup yet") == 2 and "NOT WELL" not in everything
    for path in (data / "config" / "repositories").iterdir():
        assert path.stat().st_mode & 0o077 == 0
    (place / "repository.json").rename(tmp_path / "elsewhere.json")
    assert "repository.json is missing" in pacs("repository", "verify", "usb", code=5).stdout
    (tmp_path / "elsewhere.json").rename(place / "repository.json")
    assert "no repository of this appliance any more" in pacs("repository", "remove", "usb").stdout
    assert json.loads(pacs("repository", "list", "--json").stdout) == []
    assert (place / "keyring.json.bin").exists()
    pacs("repository", "add", "usb", "--place", str(place), "--on-system-disk")


def test_the_sheet_is_printed_tried_and_made_anew(pacs: Pacs, data: Path, tmp_path: Path) -> None:
    pacs("keys", "verify", given="nonsense\n", code=2)
    place = tmp_path / "usb"
    place.mkdir()
    pacs("repository", "add", "usb", "--place", str(place), "--on-system-disk")
    printed = pacs("keys", "show").stdout
    key = master_key(data)
    for group in key.groups():
        assert group in printed
    assert str(place) in printed and key.key_id in printed and max(map(len, printed.splitlines())) <= 120
    assert "the key opens it" in pacs("keys", "verify", given=f"{key.text.lower()}\n").stdout
    wrong = ("2" if key.text[0] != "2" else "3") + key.text[1:]
    assert "Group 1 of the key" in pacs("keys", "verify", given=f"{wrong}\n", code=2).stderr
    assert "sealed by the new sheet" in pacs("keys", "rotate").stdout
    sheet = tmp_path / "sheet.txt"
    sheet.write_text(key.text)
    assert "does not open" in pacs("keys", "verify", "--sheet-file", str(sheet), code=5).stderr
    sheet.write_text(master_key(data).text)
    pacs("keys", "verify", "--sheet-file", str(sheet))


def test_keys_that_were_lost_come_back_from_a_repository(pacs: Pacs, data: Path, tmp_path: Path) -> None:
    place, sheet, keys = tmp_path / "usb", tmp_path / "sheet.txt", data / "config" / "keys"
    place.mkdir()
    pacs("repository", "add", "usb", "--place", str(place), "--on-system-disk")
    sheet.write_text(master_key(data).text)
    before = (keys / "keyring.json").read_bytes()
    for each in keys.iterdir():
        each.unlink()
    assert "sealed with other keys" in pacs("repository", "verify", code=5).stdout
    other = tmp_path / "other.txt"
    other.write_text(master_key(data).text)
    assert "does not open" in pacs("keys", "recover", "usb", "--sheet-file", str(other), code=12).stderr
    pacs("keys", "recover", "usb", "--sheet-file", str(sheet))
    assert (keys / "keyring.json").read_bytes() == before
    pacs("repository", "verify")
    pacs("keys", "verify", "--sheet-file", str(sheet))


def test_keys_are_nobody_elses(pacs: Pacs, data: Path) -> None:
    pacs("keys", "show")
    folder = data / "config" / "keys"
    assert folder.stat().st_mode & 0o077 == 0
    assert [path.stat().st_mode & 0o077 for path in folder.iterdir()] == [0, 0]
