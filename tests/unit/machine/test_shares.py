"""Shares as they are named, and the mount units that are made of them. That systemd takes those: tests/roles."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pacs.errors import DataTooNew, NotFound, UsageError, VolumeError
from pacs.machine import shares
from pacs.machine.storage import Places


@pytest.fixture
def places(tmp_path: Path) -> Places:
    (tmp_path / "srv/state/mounts").mkdir(parents=True)
    return Places(tmp_path / "srv", units=tmp_path / "units")


def _settings(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def test_nfs_is_mounted_so_that_nothing_is_lost(places: Places) -> None:
    found = _settings(shares.unit_of(shares.checked("nas", "nas.example.org:/pacs", []), places))
    assert (found["What"], found["Where"], found["Type"]) == (
        "nas.example.org:/pacs", str(places.volumes / "nas"), "nfs4",
    )  # fmt: skip
    assert {"hard", "sync", "nodev", "nosuid", "noexec", "_netdev", "vers=4.2"} <= set(found["Options"].split(","))


def test_smb_has_its_credentials_in_a_file_and_no_cache(places: Places) -> None:
    found = _settings(shares.unit_of(shares.checked("nas", "//nas/My Share 50%", ["vers=3.0,nosharesock"]), places))
    assert (found["What"], found["Type"]) == ("//nas/My Share 50%%", "cifs")
    options = found["Options"].split(",")
    assert {"cache=none", "vers=3.0", "nosharesock", f"credentials={places.state}/mounts/nas.smb"} <= set(options)
    assert [each for each in options if each.startswith("vers=")] == ["vers=3.0"], "what is given takes its place"


@pytest.mark.parametrize(
    "name, source, option",
    [
        ("state", "nas:/x", ""), ("a b", "nas:/x", ""), ("../x", "nas:/x", ""), ("nas", "/dev/sda", ""),
        ("nas", "nas:/x\nExecStart=/bin/sh", ""), ("nas", "//nas", ""), ("nas", "nas:/x", "rw\nWhat=y"),
        ("nas", "//nas/x", "password=secret"), ("nas", "nas:/x", "a b"),
    ],
)  # fmt: skip
def test_what_is_no_share_is_refused(name: str, source: str, option: str) -> None:
    with pytest.raises(UsageError) as refused:
        shares.checked(name, source, [option])
    assert "secret" not in str(refused.value)


def test_what_is_known_is_told_and_damage_says_what_to_do(places: Places) -> None:
    folder = places.state / "mounts"
    record = {"name": "nas", "source": "nas:/x", "options": ["nconnect=4"], "format": 1}
    (folder / "nas.json").write_text(json.dumps(record))
    assert shares.known(places) == [shares.Share("nas", "nas:/x", ("nconnect=4",))]
    (folder / "nas.json").write_text(json.dumps(record | {"format": 2}))
    with pytest.raises(DataTooNew):
        shares.known(places)
    (folder / "nas.json").write_text(json.dumps(record | {"source": "nas:/x\nType=ext4"}))
    (note,) = shares.mount_known(places)
    assert "name the share again" in note
    assert not places.units.exists(), "nothing is made of it"
    with pytest.raises(VolumeError):
        shares.known(places)
    with pytest.raises(NotFound):
        shares.remove(places, "other")


def test_a_name_is_given_once_and_smb_needs_credentials(places: Places) -> None:
    nas = shares.checked("nas", "//nas/x", [])
    with pytest.raises(UsageError, match="credentials-file"):
        shares.add(places, nas)
    (places.state / "mounts/nas.json").write_text("{}")
    with pytest.raises(UsageError, match="already"):
        shares.add(places, nas, b"username=u\n")
    (places.volumes / "other").mkdir()
    (places.volumes / "other/file").touch()
    with pytest.raises(UsageError, match="in use"):
        shares.add(places, shares.checked("other", "nas:/x", []))
