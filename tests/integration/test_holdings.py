"""Two nodes are the same archive if each, by its own reading, has every byte."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pacs.archive.holdings import Reading, Statement, own_volumes, read_all, state
from pacs.archive.pace import Pace
from pacs.backup.certificate import certify, parse_statement, verify
from pacs.backup.keys import Keyring
from pacs.cli.instance import Instance
from pacs.errors import DigestMismatch, UsageError, WrongKey
from pacs.index import volumes as volume_rows
from pacs.settings import Settings
from pacs.storage.read_log import ReadLog
from pacs.storage.volume import create_identity, read_identity
from tests.planting import copies, store
from tests.synthetic import ct_study


@dataclass
class Side:
    """A node with an index and disks of its own."""

    instance: Instance
    settings: Settings

    @property
    def log(self) -> ReadLog:
        return ReadLog(self.settings.data)

    def read(self, anew: bool = False) -> Reading:
        self.log.begin(anew)
        return read_all(own_volumes(self.settings, self.instance.database), self.log, Pace(None))

    def state(self) -> Statement:
        database = self.instance.database
        return state(self.settings.data, own_volumes(self.settings, database), self.log, database)

    def file(self, number: int) -> Path:
        path: str = copies(self.instance)[number]["path"]
        return self.settings.tier1_root / path


@pytest.fixture
def old(instance: Instance) -> Side:
    """A node with eight objects in two studies."""
    for seed in (1, 2):
        store(instance, ct_study(seed, 4))
    return Side(instance, instance.settings)


@pytest.fixture
def new(old: Side, tmp_path: Path) -> Iterator[Side]:
    """Another one with a copy of the files on a disk of its own, and what a standby has of the index: the same rows."""
    data = tmp_path / "new"
    (data / "config").mkdir(parents=True)
    ours = create_identity(data, ("state",))
    (data / "disk").mkdir()
    made = create_identity(data / "disk", ("tier1",), ours.appliance_id)
    shutil.copytree(old.settings.tier1_root / "objects", data / "disk" / "objects")
    place = f"sftp://pacs@new:22{data}/disk"
    volume_rows.register_volume(
        old.instance.database, volume_rows.KnownVolume(made.volume_id, "new-tier1", 3, place, "sftp")
    )
    yield Side(old.instance, old.settings.model_copy(update={"data": data, "tier1": None, "tier2": None}))


def test_two_that_hold_the_same_get_a_certificate(old: Side, new: Side) -> None:
    assert (old.read(), new.read()) == (Reading(8, 8, 8 * old.file(0).stat().st_size, 0),) * 2
    ours, theirs = old.state(), new.state()
    assert (ours.objects, ours.lacking) == (8, 0) and ours.digest == theirs.digest
    assert ours.appliance_id == read_identity(old.settings.data).appliance_id != theirs.appliance_id
    keyring = Keyring.open(old.settings.data)
    made = certify(ours, parse_statement(json.dumps(theirs.__dict__)), keyring)
    assert verify(made, keyring)["nodes"][1]["appliance_id"] == theirs.appliance_id
    assert b"sop" not in made and not any(row["uid"].encode() in made for row in copies(old.instance))
    changed = json.loads(made)
    changed["nodes"][1]["objects"] = 9
    for wrong in (json.dumps(changed).encode(), made[:-20], b"{}", b"[]"):
        with pytest.raises(WrongKey):
            verify(wrong, keyring)
    with pytest.raises(WrongKey):
        verify(made, Keyring.open(new.settings.data))


def test_a_byte_that_differs_is_found(old: Side, new: Side) -> None:
    old.read()
    path = new.settings.data / "disk" / old.file(3).relative_to(old.settings.tier1_root)
    content = path.read_bytes()
    for harm in (None, content[:-1] + bytes([content[-1] ^ 1]), content[:-1], old.file(5).read_bytes()):
        path.unlink()
        if harm is not None:
            path.write_bytes(harm)
        done = new.read(anew=True)
        assert (done.whole, done.damaged) == (7, int(harm is not None))
        theirs = new.state()
        assert (theirs.objects, theirs.lacking) == (8, 1)
        with pytest.raises(DigestMismatch, match="has not read 1 of its 8 objects as whole"):
            certify(old.state(), theirs, Keyring.open(old.settings.data))
        path.write_bytes(content)  # mended: only that one is read again
        assert new.read().read == 1
        assert certify(old.state(), new.state(), Keyring.open(old.settings.data))


def test_what_one_has_beyond_the_other_is_found(old: Side, new: Side) -> None:
    old.read()
    new.read()
    before = new.state()
    store(old.instance, ct_study(3, 1))
    keyring = Keyring.open(old.settings.data)
    with pytest.raises(DigestMismatch, match="has not read 1 of its 9 objects"):
        certify(old.state(), before, keyring)
    assert old.read().read == 1, "what is new, and nothing else"
    with pytest.raises(DigestMismatch, match="9 objects here, 8 there"):
        certify(old.state(), before, keyring)
    with pytest.raises(UsageError, match="Both are of this node"):
        certify(old.state(), old.state(), keyring)
    with pytest.raises(DigestMismatch, match="not equal"):
        certify(old.state(), replace(old.state(), appliance_id="other", digest="00"), keyring)


def test_what_is_no_statement(old: Side) -> None:
    for text in ("", "{}", "[]", '{"format": 1, "patients": 3}'):
        with pytest.raises(UsageError, match="Give it as it is"):
            parse_statement(text)


def test_a_reading_that_is_killed_goes_on(old: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    assert old.read().read == 8
    store(old.instance, ct_study(3, 4))
    volume_id = old.instance.volumes.tier(1)[0].volume_id
    whole, part = (old.log.folder / f"{volume_id}.{end}" for end in ("txt", "part"))
    old.read()
    lines = whole.read_bytes().splitlines(keepends=True)
    assert len(lines) == 12 and lines == sorted(lines)
    for at in range(13):  # killed after so many lines, in the middle of one
        whole.write_bytes(b"".join(lines[::2]))
        part.write_bytes(b"".join(lines[:at]) + (lines[at][:-2] if at < 12 else b""))
        done = old.read()
        assert (done.whole, done.read) == (12, len(set(lines) - set(lines[::2]) - set(lines[:at])))
        assert whole.read_bytes() == b"".join(lines) and not part.exists()
    assert old.read().read == 0
    assert old.read(anew=True).read == 12


def test_by_its_commands(
    old: Side, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from pacs.cli.main import make_app

    def pacs(*words: str) -> str:
        make_app(["holdings"])(["--data", str(old.settings.data), "holdings", *words], standalone_mode=False)
        return capfd.readouterr().out

    assert pacs("read").startswith("8 files are whole; 8 of them")
    said = json.loads(pacs("state", "--json"))
    assert (said["objects"], said["lacking"]) == (8, 0)
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({**said, "appliance_id": "other"})))
    (tmp_path / "certificate").write_text(pacs("certify", "-"))
    shown = pacs("verify", str(tmp_path / "certificate"))
    assert "Both nodes have read every object" in shown and shown.count("8 objects") == 2
    old.file(0).write_bytes(b"spoilt")
    with pytest.raises(DigestMismatch, match="1 files are not whole"):
        pacs("read")
    assert capfd.readouterr().out.startswith("7 files are whole")
    assert json.loads(pacs("state", "--json"))["lacking"] == 1
