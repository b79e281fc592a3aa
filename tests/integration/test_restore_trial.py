"""A restore beside an archive that goes on: it asks before it stops that one, and a trial does it no harm."""

from __future__ import annotations

import hashlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pacs.backup.mark import MARK
from pacs.storage.lineage import MARK_FILE
from tests import peer
from tests.faults.process import wait_for
from tests.fix_instance import Dev
from tests.peer import RawObject
from tests.restoring import QUICK, Archive, Lost, check_of, given_back, is_whole_again, living_archive, rows
from tests.synthetic import ct_study

pytestmark = pytest.mark.timeout(600)
STUDY = [RawObject.of(each) for each in ct_study(1, 3)]
LATER = [RawObject.of(each) for each in ct_study(2, 2)]


@pytest.fixture(scope="module")
def living(short_folder: Path) -> Iterator[Archive]:
    with living_archive(short_folder, STUDY) as made:
        yield made


def _words(living: Archive, *words: str) -> list[str]:
    return ["restore", "--repository", str(living.repository), "--sheet", str(living.sheet), *words]


def _files(folder: Path) -> dict[str, str]:
    """Every file of a repository that nobody writes to: its digest and when it was written."""
    return {
        str(path.relative_to(folder)): f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.stat().st_mtime_ns}"
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_living_archive_is_not_stopped_without_a_word(living: Archive, new_dev: Callable[..., Dev]) -> None:
    new = new_dev(**QUICK)
    for words in (("--yes",), ()):
        done = new.pacs(*_words(living, *words), check=False)
        assert done.returncode == 8 and "--the-old-one-is-gone" in done.stderr, done.stdout + done.stderr
        assert "THE OLD APPLIANCE SEEMS TO BE ALIVE" in done.stdout
    assert new.pacs(*_words(living, "--trial", "--the-old-one-is-gone"), check=False).returncode == 2
    assert not (new.data / MARK).exists()


def test_on_a_terminal_it_is_asked(living: Archive, new_dev: Callable[..., Dev]) -> None:
    """What is typed is none of what is asked for, then nothing more comes: nothing is touched."""
    new, (ours, theirs) = new_dev(**QUICK), os.openpty()
    words = [sys.executable, "-m", "pacs.cli.main", "--data", str(new.data), *_words(living, "--yes")]
    with subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as process:
        os.close(theirs)
        try:
            said = _read_until(ours, b"trial): ")
            os.write(ours, b"perhaps\n")
            _read_until(ours, b"trial): ")
            os.write(ours, b"\x04")  # the end of what is typed
            process.wait(60)
        finally:
            process.kill()
            os.close(ours)
    assert b"ALIVE" in said and b"Is the old appliance gone for good" in said
    assert process.returncode != 0 and not (new.data / MARK).exists()


def _read_until(terminal: int, end: bytes) -> bytes:
    found, ends = b"", time.monotonic() + 60
    while end not in found:
        assert time.monotonic() < ends and select.select([terminal], [], [], 60)[0], found
        found += os.read(terminal, 4096)
    return found


def test_a_trial_leaves_the_archive_and_its_repository_alone(
    living: Archive, new_dev: Callable[..., Dev], short_folder: Path
) -> None:
    copy = Lost(living.repository, living.sheet).copy(short_folder / "looked-at")
    before, new = _files(copy.repository), new_dev(**QUICK)
    said = copy.restore(new, "--trial")
    assert "1 studies, 3 objects" in said and "TRIAL COPY" in said
    new.start()
    assert given_back(new, STUDY) == {raw.sop_instance_uid: raw.dataset for raw in STUDY}
    assert set(peer.store(new.dicom_port, LATER)) == {0}
    wait_for(lambda: is_whole_again(new) or None, f"it does not come back: {new.log()[-2000:]}", timeout_s=120)
    _refuses_to_write(new)
    severity, message = check_of(new, "lineage")
    assert severity == "warning" and "trial copy" in message
    assert {check_of(new, name) for name in ("backup", "drill")} == {("ok", "none: this is a trial copy")}
    new.stop()
    new.start()  # and after a start
    wait_for(lambda: new.pacs("reconcile", "run", check=False).returncode == 0 or None, "not reconciled", timeout_s=60)
    new.stop()
    assert _files(copy.repository) == before
    assert (new.data / "lineage" / "reverted.json").exists() is False
    # The archive goes on: it takes, ships and makes points as before.
    mark = (living.repository / MARK_FILE).read_bytes()
    living.send(LATER)
    living.wait_for_point()
    assert check_of(living.dev, "lineage")[0] == "ok", check_of(living.dev, "lineage")
    assert b'"epoch": 1' in mark


def _refuses_to_write(trial: Dev) -> None:
    for words in (
        ("backup", "run"), ("backup", "configured"), ("backup", "keys", "rotate"), ("drill", "run"),
        ("lineage", "claim", "--yes"),
    ):  # fmt: skip
        done = trial.pacs(*words, check=False)
        assert done.returncode == 14 and "trial copy" in done.stderr, (words, done.stderr)
    assert "trial copy" in trial.pacs("lineage", "show").stdout
    assert rows(trial, "SELECT commitment_key FROM commitment WHERE state = 'open'") == []


@pytest.mark.long
def test_a_trial_that_is_killed_goes_on_as_one(living: Archive, new_dev: Callable[..., Dev]) -> None:
    new = new_dev(**QUICK)
    words = [sys.executable, "-m", "pacs.cli.main", "--data", str(new.data), *_words(living, "--trial")]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: (new.data / MARK).exists() or None, "it does not begin", timeout_s=60)
        process.kill()
    assert "TRIAL COPY" in new.pacs("restore").stdout
    assert "trial copy" in new.pacs("lineage", "show").stdout
