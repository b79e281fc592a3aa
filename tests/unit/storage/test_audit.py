"""The audit log's files: what any tampering shows, what a kill leaves, what a restore goes on from, what expires."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from pacs import clock
from pacs.model.audit import event
from pacs.model.audit_chain import Chain, Head, Verified, line_of, parsed
from pacs.storage import audit as audit_files
from pacs.storage.audit import AuditLog, first_of
from pacs.storage.audit_copies import AuditCopies, adopt_from_folders, heads_on, put_head, remove_heads
from pacs.storage.audit_signing import sign_with, verify_with
from pacs.storage.audit_verify import verify
from pacs.storage.files import LocalVolume
from pacs.storage.keyring import Keyring
from pacs.storage.volume import create_identity

BY = {"unit": "test.service"}


def note(log: AuditLog, *texts: str) -> None:
    for text in texts:
        log.append([event("alert", BY, kind="node", text=text)])


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    """Two sealed batches, three events in each, and two events that are not sealed: lines 1 to 11."""
    log = AuditLog(tmp_path)
    note(log, "a", "b", "c")
    log.seal()
    note(log, "d", "e", "f")
    log.seal()
    note(log, "g", "h")
    return log


def look(log: AuditLog, *heads: Head) -> Verified:
    return Chain(heads).run(log.lines())


def lines(log: AuditLog) -> list[bytes]:
    return log.segments()[0].read_bytes().splitlines(keepends=True)


def put(log: AuditLog, content: list[bytes]) -> None:
    log.segments()[0].write_bytes(b"".join(content))


def rechained(content: list[bytes], first: int) -> list[bytes]:
    """Lines whose numbers and check values are made anew from an index on, as somebody would who knows how."""
    check = str((parsed(content[first - 1]) or {})["c"])
    for index in range(first, len(content)):
        values = parsed(content[index]) or {}
        del values["c"], values["n"]
        content[index], check = line_of(index + 1, check, values)
    return content


def test_what_was_written_is_whole(log: AuditLog) -> None:
    found = look(log)
    assert (found.fault, found.first, found.last, found.unsealed) == (None, 1, 11, 2)
    assert found.head == log.head()
    assert [each.get("text") for each in log.read(6)] == ["d", "e", "f", None, "g", "h"]
    assert log.unsealed_since() is not None


def changed(content: list[bytes]) -> list[bytes]:
    content[6] = content[6].replace(b'"e"', b'"E"').replace(b'"text":"e', b'"text":"x')
    return content


def removed(content: list[bytes]) -> list[bytes]:
    return content[:6] + content[7:]


def inserted(content: list[bytes]) -> list[bytes]:
    return [*content[:6], content[2], *content[6:]]


def forged(content: list[bytes]) -> list[bytes]:
    line, _check = line_of(7, str((parsed(content[5]) or {})["c"]), {"at": "2026", "e": "alert", "text": "never was"})
    return [*content[:6], line, *content[6:]]


def swapped(content: list[bytes]) -> list[bytes]:
    content[6], content[7] = content[7], content[6]
    return content


def garbled(content: list[bytes]) -> list[bytes]:
    content[6] = b"\0" * 40 + b"\n"
    return content


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (changed, "was changed"),
        (removed, "line 7 was removed"),
        (inserted, "was inserted before line 7"),
        (forged, "one of the two lines 7 was inserted"),
        (swapped, "was inserted before line 7"),
        (garbled, "is no line of the log"),
    ],
)
def test_the_first_line_that_is_not_as_it_was_is_named(
    log: AuditLog, tamper: Callable[[list[bytes]], list[bytes]], words: str
) -> None:
    put(log, tamper(lines(log)))
    fault = look(log).fault
    assert fault is not None and words in fault.problem
    assert fault.number in (3, 7, 8) and re.search("lines? 7", fault.where + fault.problem)


def test_a_line_that_was_changed_with_all_check_values_after_it_breaks_its_seal(log: AuditLog) -> None:
    content = lines(log)
    content[6] = content[6].replace(b'"text":"e"', b'"text":"x"')
    put(log, rechained(content, 6))
    fault = look(log).fault
    assert fault is not None and fault.number == 6 and "not what was sealed in line 9" in fault.problem


def rewritten(log: AuditLog, without: str) -> AuditLog:
    """The log as root would make it anew, seals and all, without one event."""
    texts = [each.get("text", "") for each in log.read() if each["e"] != "segment"]
    for segment in log.segments():
        segment.unlink()
    for text in texts:
        if not text:
            log.seal()
        elif text != without:
            note(log, text)
    return log


def test_a_log_that_was_made_anew_as_a_whole_is_found_by_a_head_that_was_kept_elsewhere(log: AuditLog) -> None:
    head = log.head()
    assert head is not None
    assert look(log, head).met == [head]
    rewritten(log, "b")
    assert look(log).fault is None, "nothing in the log itself can tell"
    fault = look(log, head).fault
    assert fault is not None and str(head) in fault.problem


def test_what_was_cut_off_is_found_by_a_head(log: AuditLog) -> None:
    head = log.head()
    assert head is not None
    put(log, lines(log)[:7])
    assert look(log).fault is None
    fault = look(log, head).fault
    assert fault is not None and (fault.number, fault.where) == (8, "the end") and "cut off" in fault.problem


def test_a_beginning_that_is_gone_and_has_not_expired_is_found(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_files, "SEGMENT_SIZE_BYTES", 100)
    log.seal()
    note(log, "i")
    log.seal()
    assert len(log.segments()) == 3 and look(log).fault is None
    log.segments()[0].unlink()
    fault = look(log).fault
    assert fault is not None and "to line 12 are gone" in fault.problem


def test_expired_segments_go_and_the_rest_is_whole(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_files, "SEGMENT_SIZE_BYTES", 100)
    head = log.seal()
    note(log, "i")
    assert log.expire(clock.now() - timedelta(days=1), BY) == 0
    assert log.expire(clock.now() + timedelta(seconds=1), BY) == 1
    found = look(log)
    assert (found.fault, found.first, len(log.segments())) == (None, 13, 1)
    assert [each["last"] for each in log.read() if each["e"] == "log expired"] == [12]
    assert head is not None and head.number == 12
    log.seal()
    content = lines(log)
    content[0] = content[0].replace(head.digest.encode(), b"f" * 64)
    put(log, content)
    assert look(log).fault is not None, "another beginning than the one that expired"


def test_half_a_line_is_taken_away(log: AuditLog) -> None:
    segment = log.segments()[0]
    with segment.open("ab") as file:
        file.write(b'{"c":"0123456789abcdef","n":12,"at":"2026')
    assert look(log).fault is None, "nobody was told of it"
    note(log, "after")
    found = look(log)
    assert (found.fault, found.last) == (None, 12)


def test_seals_are_signed_where_there_is_a_key(log: AuditLog, tmp_path: Path) -> None:
    assert sign_with(tmp_path) is None and verify_with(tmp_path) is None
    Keyring.open(tmp_path)
    log.seal(sign_with(tmp_path))
    assert verify(tmp_path).chain.signed == 1 and verify(tmp_path).is_whole
    other = tmp_path / "other"
    Keyring.open(other)
    fault = Chain((), verify_with(other)).run(log.lines()).fault
    assert fault is not None and "not signed" in fault.problem


def _write_for_ever(data: Path, name: str) -> None:
    log, count = AuditLog(data), 0
    while True:
        log.append([event("alert", BY, kind="node", text=f"{name} {count} {'x' * 400}")])
        (data / name).write_text(str(count))
        count += 1


def test_killed_writers_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    made = multiprocessing.get_context("fork")
    for turn in range(4):
        names = [f"w{turn}{number}" for number in range(3)]
        processes = [made.Process(target=_write_for_ever, args=(tmp_path, name)) for name in names]
        for process in processes:
            process.start()
        ends = time.monotonic() + 60
        while not all((tmp_path / name).exists() for name in names) and time.monotonic() < ends:
            AuditLog(tmp_path).seal()
        for process in processes:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join()
    log = AuditLog(tmp_path)
    log.seal()
    assert look(log).fault is None
    written = {" ".join(each["text"].split()[:2]) for each in log.read() if each["e"] == "alert"}
    for path in tmp_path.glob("w*"):
        noted = path.read_text()
        assert {f"{path.name} {number}" for number in range(int(noted) + 1 if noted else 0)} <= written


def volume_at(root: Path) -> LocalVolume:
    root.mkdir()
    create_identity(root, ("tier1",))
    return LocalVolume(root, "tier1")


def test_copies_follow_and_a_copy_that_differs_is_found_and_kept(log: AuditLog, tmp_path: Path) -> None:
    volume = volume_at(tmp_path / "volume")
    copies = AuditCopies(log)
    assert (copies.copy_to(volume), copies.copy_to(volume)) == (1, 0)
    note(log, "more")
    copies.copy_to(volume)
    name = log.segments()[0].name
    assert (tmp_path / "volume" / "audit" / name).read_bytes() == log.segments()[0].read_bytes()

    content = lines(log)
    content[-1] = content[-1].replace(b'"more"', b'"less"')
    put(log, content)
    verdict = verify(tmp_path, volumes=[volume])
    assert verdict.chain.fault is not None
    put(log, rechained(content, len(content) - 1))
    verdict = verify(tmp_path, volumes=[volume])
    assert verdict.chain.fault is None, "the last line was not sealed"
    assert verdict.differing == [f"{volume.location}: says something else from line 12 on"]
    AuditCopies(log).copy_to(volume)
    (kept,) = (tmp_path / "volume" / "audit-replaced").iterdir()
    assert b'"more"' in kept.read_bytes()
    assert [each["kind"] for each in log.read(13) if each["e"] == "alert"] == ["security"]


def test_a_new_state_goes_on_from_the_longest_copy(log: AuditLog, tmp_path: Path) -> None:
    volume = volume_at(tmp_path / "volume")
    AuditCopies(log).copy_to(volume)
    new = AuditLog(tmp_path / "new")
    note(new, "the first start of the machine that is to take over")
    assert adopt_from_folders(new, [tmp_path / "volume"]) == 1
    assert adopt_from_folders(new, [tmp_path / "volume"]) == 0
    note(new, "goes on")
    found = look(new)
    assert (found.fault, found.last) == (None, 12)
    assert len(list((new.folder / "replaced").rglob("*.jsonl"))) == 1
    assert adopt_from_folders(new, [tmp_path / "volume"]) == 0, "ours knows more"


def test_lines_hold_what_json_and_a_terminal_can_bear(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    note(log, 'a\n"b\x00\x85\u2028', "\udcff")
    assert look(log).fault is None
    assert json.loads(lines(log)[1])["text"] == 'a\n"b\x00\x85\u2028'


def test_what_expires_goes_from_the_volumes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_files, "SEGMENT_SIZE_BYTES", 100)
    log, volume = AuditLog(tmp_path), volume_at(tmp_path / "volume")
    for text in "abc":
        note(log, text)
        log.seal()
    copies = AuditCopies(log)
    assert copies.copy_to(volume) == 4
    heads = [Head(each["n"], each["head"]) for each in log.read() if each["e"] == "seal"]
    for head in heads:
        put_head(volume, head)
    assert log.expire(clock.now() + timedelta(seconds=1), BY) == 3
    copies.copy_to(volume)
    remove_heads(volume, first_of(log.segments()[0].name))
    assert [path.name for path in (tmp_path / "volume" / "audit").glob("*.jsonl")] == [log.segments()[0].name]
    assert not heads_on(volume)
    assert verify(tmp_path, volumes=[volume]).is_whole
    again = AuditCopies(log)  # the worker was started again meanwhile
    (tmp_path / "volume" / "audit" / "000000000001-2026-01-01.jsonl").write_bytes(b"old")
    again.copy_to(volume)
    assert len(list((tmp_path / "volume" / "audit").glob("*.jsonl"))) == 1
