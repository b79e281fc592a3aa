"""The audit log on a running archive: DCMTK's tools as devices, commands, kills; its messages by syslog over TLS."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from pacs.backup.keys import Keyring
from pacs.backup.repositories import open_volume, repository_named
from pacs.model.audit_chain import Head
from pacs.storage.audit import AuditLog
from pacs.storage.audit_copies import copy_on, heads_on
from tests.audit_schema import valid
from tests.certificates import Certificate, make_certificate
from tests.dcmtk import dcmtk
from tests.faults.process import kill, wait_for
from tests.faults.wire import CT, EXPLICIT, Wire
from tests.fix_instance import Dev
from tests.integration.test_receivers import receiver_pids
from tests.pages import machine
from tests.peer import RawObject
from tests.restoring import NAME, QUICK, Lost, living_archive
from tests.synthetic import ct_dataset, ct_study, encode

_CT = "1.2.840.10008.5.1.4.1.1.2"


def events(dev: Dev, kind: str = "", who: str = "") -> list[dict[str, Any]]:
    """The events of a kind, of somebody."""
    return [
        each
        for each in AuditLog(dev.data).read()
        if kind in ("", each["e"]) and (not who or any(who in each.get(end, {}).values() for end in ("by", "to")))
    ]


def wait_for_events(dev: Dev, count: int, kind: str = "", who: str = "") -> list[dict[str, Any]]:
    """The events that fit, when there are so many."""
    return wait_for(
        lambda: found if len(found := events(dev, kind, who)) >= count else None, "the event does not come", 120
    )


@pytest.fixture(scope="module")
def archive(dev: Dev, tmp_path_factory: pytest.TempPathFactory) -> Dev:
    """An archive that got two studies over one association, and was asked for them."""
    folder = tmp_path_factory.mktemp("studies")
    for seed, count in ((7701, 3), (7702, 2)):
        for each in ct_study(seed, count):
            each.write(folder)
    files = [str(path) for path in sorted(folder.iterdir())]
    base = ["-aet", "CT1", "-aec", "PACS", "127.0.0.1", str(dev.dicom_port)]
    subprocess.run([dcmtk("storescu"), *base, *files], check=True, capture_output=True, timeout=60)
    wait_for_events(dev, 2, "received", "CT1")  # the worker writes them, a moment later
    return dev


def uid(seed: int) -> str:
    return str(ct_dataset(seed).StudyInstanceUID)


def test_an_association_is_one_event_a_study(archive: Dev) -> None:
    found = wait_for_events(archive, 2, "received", "CT1")
    assert {(each["study"], each["patient"], each["classes"][_CT]) for each in found} == {
        (uid(7701), "P7701", 3), (uid(7702), "P7702", 2),
    }  # fmt: skip
    assert all(each["by"] == {"ae": "CT1", "peer": "127.0.0.1"} and "o" not in each for each in found)
    assert len(events(archive, "received", "CT1")) == 2


def test_a_query_is_an_event_with_its_identifier(archive: Dev) -> None:
    subprocess.run(
        [dcmtk("findscu"), "-S", "-aet", "ASKER", "-aec", "PACS", "127.0.0.1", str(archive.dicom_port),
         "-k", "QueryRetrieveLevel=STUDY", "-k", "PatientID=P7701", "-k", "StudyInstanceUID"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    (found,) = wait_for_events(archive, 1, "query", "ASKER")
    assert (found["level"], found["class"]) == ("STUDY", "1.2.840.10008.5.1.4.1.2.2.1")
    message = archive.pacs("audit", "show", str(found["n"]), "--xml").stdout.encode()
    query = valid(message).find("ParticipantObjectIdentification/ParticipantObjectQuery").text
    assert b"P7701" in base64.b64decode(query)


def test_a_retrieve_is_two_events_a_study_however_many_requests_it_takes(archive: Dev, tmp_path: Path) -> None:
    subprocess.run(
        [dcmtk("getscu"), "-S", "-aet", "GETTER", "-aec", "PACS", "-od", str(tmp_path), "127.0.0.1",
         str(archive.dicom_port), "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={uid(7701)}"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    (sent,) = wait_for_events(archive, 1, "sent", "GETTER")
    assert (sent["study"], sent["patient"], sent["classes"], sent["to"]["ae"]) == (
        uid(7701), "P7701", {_CT: 3}, "GETTER",
    )  # fmt: skip
    (sending,) = events(archive, "sending", "GETTER")
    assert sending["objects"] == 3 and sending["n"] < sent["n"]


def test_a_move_that_fails_says_where_it_was_to_go(archive: Dev) -> None:
    archive.pacs("device", "add", "gone", "--ae-title", "GONE", "--host", "127.0.0.1", "--port", "1")
    subprocess.run(
        [dcmtk("movescu"), "-S", "-aet", "MOVER", "-aec", "PACS", "-aem", "GONE", "127.0.0.1", str(archive.dicom_port),
         "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={uid(7702)}"],
        check=False, capture_output=True, timeout=60,
    )  # fmt: skip
    (sent,) = wait_for_events(archive, 1, "sent", "GONE")
    assert (sent["by"]["ae"], sent["failed"], sent["o"]) == ("MOVER", 2, 4)


def test_commands_and_changes_say_who(archive: Dev) -> None:
    archive.pacs("device", "add", "ct9", "--ae-title", "CT9", "--host", "127.0.0.1", "--port", "104")
    assert archive.pacs("device", "remove", "nobody", check=False).returncode == 9
    found = [each for each in events(archive, "alert") if each["kind"] == "network"]
    texts = [each["text"] for each in found if "ct9" in each["text"] or "nobody" in each["text"]]
    assert texts[0].startswith("pacs device add ct9") and texts[1].startswith("device add: ")
    assert texts[2:] == ["pacs device remove nobody", "pacs device remove nobody ended with 9"]
    assert all(each["by"].get("login") for each in found)


def test_who_reads_the_log_stands_in_it(archive: Dev) -> None:
    said = archive.pacs("audit", "search", "--patient", "P7701", "--event", "received", "--json").stdout.splitlines()
    assert [json.loads(line)["patient"] for line in said] == ["P7701"] * len(said) != []
    (found,) = [each for each in events(archive, "log used") if each["text"].startswith("search patient P7701")]
    assert found["by"].get("login")


def test_refused_callers_are_told_of(archive: Dev) -> None:
    subprocess.run(
        [dcmtk("echoscu"), "-aet", "WRONG", "-aec", "ELSEWHERE", "127.0.0.1", str(archive.dicom_port)],
        check=False, capture_output=True, timeout=60,
    )  # fmt: skip
    (found,) = wait_for_events(archive, 1, "alert", "WRONG")
    assert (found["e"], found["kind"], found["by"]["peer"]) == ("alert", "node", "127.0.0.1")


def test_every_event_is_a_message_of_the_standard(archive: Dev) -> None:
    archive.pacs("device", "list")
    exported = archive.pacs("audit", "export", "--file", "-").stdout.splitlines()
    assert len(exported) > 5
    codes = {valid(line.encode()).find("EventIdentification/EventID").get("csd-code") for line in exported}
    assert {"110100", "110104", "110108", "110113"} <= codes


def test_a_whole_log_is_whole_and_one_that_was_changed_is_not(archive: Dev) -> None:
    head = archive.pacs("audit", "head").stdout.strip()
    said = archive.pacs("audit", "verify", "--head", head).stdout
    assert re.search(r"whole: lines 1 to \d+", said) and "1 heads that were kept elsewhere fit" in said
    segment = next((archive.data / "audit").glob("*.jsonl"))
    content = segment.read_bytes()
    try:
        segment.write_bytes(content.replace(b'"P7702"', b'"P7703"', 1))
        line = next(json.loads(each)["n"] for each in content.splitlines() if b'"P7702"' in each)
        refused = archive.pacs("audit", "verify", "--chain-only", check=False)
        assert refused.returncode == 10 and f"Line {line} " in refused.stderr and "was changed" in refused.stderr
    finally:
        segment.write_bytes(segment.read_bytes().replace(b'"P7703"', b'"P7702"', 1))
    assert archive.pacs("audit", "verify").returncode == 0


class Repository:
    """An audit record repository: syslog over TLS on loopback. dies_after: ends a connection after so many bytes."""

    def __init__(self, certificate: Certificate) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate.certificate, certificate.key)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listening.getsockname()[1])
        self.streams: list[bytes] = []
        self.dies_after: int | None = None
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                raw, _address = self.listening.accept()
            except OSError:
                return
            try:
                with self.context.wrap_socket(raw, server_side=True) as stream:
                    content = b""
                    while piece := stream.recv(65536):
                        content += piece
                        if self.dies_after is not None and len(content) > self.dies_after:
                            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                            break
                    else:
                        self.streams.append(content)
            except OSError:
                continue

    def messages(self) -> list[bytes]:
        """What came, taken out of its frames."""
        found, content = [], b"".join(self.streams)
        while content:
            length, _, rest = content.partition(b" ")
            found.append(rest[: int(length)])
            content = rest[int(length) :]
        return found


@contextmanager
def repository(folder: Path) -> Iterator[tuple[Repository, Certificate]]:
    certificate = make_certificate(folder, "arr", alternative_name="IP:127.0.0.1")
    made = Repository(certificate)
    try:
        yield made, certificate
    finally:
        made.listening.close()


def test_events_go_by_syslog_over_tls_and_go_on_where_they_ended(archive: Dev, tmp_path: Path) -> None:
    with repository(tmp_path) as (receiver, certificate):
        where = f"127.0.0.1:{receiver.port}"
        refused = archive.pacs("audit", "export", "--syslog", where, check=False)
        assert refused.returncode == 4 and "certificate" in refused.stderr, "signed by nobody that is known"
        trusted = archive.data / "config" / "audit" / "ca.pem"
        trusted.parent.mkdir(exist_ok=True)
        trusted.write_bytes(certificate.certificate.read_bytes())
        receiver.dies_after = 100
        assert archive.pacs("audit", "export", "--syslog", where, check=False).returncode == 4
        assert not receiver.messages()
        receiver.dies_after = None
        archive.pacs("audit", "export", "--syslog", where)
        first = receiver.messages()
        archive.pacs("audit", "export", "--syslog", where)
        both = receiver.messages()
    assert len(first) > 5 and len(both) > len(first)
    numbers = []
    for each in both:
        head, _, content = each.partition(b"\xef\xbb\xbf")
        found = re.match(
            rb'<8[45]>1 (\S+) \S+ pacs \d+ DICOM\+RFC3881 \[pacs@32473 line="(\d+)" check="\w{16}"\] $', head
        )
        assert found is not None, head
        assert valid(content).find("EventIdentification").get("EventDateTime") == found[1].decode()
        numbers.append(int(found[2]))
    assert numbers == sorted(set(numbers)), "each once, in order"


def stored(dev: Dev, wire: Wire, seed: int, number: int) -> None:
    image = encode(ct_dataset(seed, number))
    assert wire.store(CT, image.sop_instance_uid, [image.dataset], number) == 0


def test_what_a_killed_receiver_had_taken_gets_its_event(new_dev: Callable[..., Dev]) -> None:
    """Receiver, worker and database die with the association open: the event comes when they are there again."""
    dev = new_dev().start()
    with Wire(dev.dicom_port) as wire:
        wire.associate([(CT, EXPLICIT)])
        for number in (1, 2):
            stored(dev, wire, 7710, number)
        dev.kill_all()
    dev.start()
    (found,) = wait_for_events(dev, 1, "received")
    assert (found["study"], found["classes"], found["o"]) == (uid(7710), {_CT: 2}, 4)
    assert "died before the association ended" in found["text"]
    # Killed at any moment between an event and its mark, it stands there once.
    for pid in dev.pids():
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") if Path(f"/proc/{pid}").exists() else []
        if b"worker" in words:
            os.kill(pid, signal.SIGKILL)
    with Wire(dev.dicom_port) as wire:
        wire.associate([(CT, EXPLICIT)])
        stored(dev, wire, 7711, 1)
        kill(receiver_pids(dev)[0])
    found_both = wait_for_events(dev, 2, "received")
    assert [each["study"] for each in found_both] == [uid(7710), uid(7711)]
    assert dev.pacs("audit", "verify").returncode == 0


@pytest.mark.long
def test_the_page_is_true(short_folder: Path) -> None:
    with machine(short_folder) as on:
        on.start()
        printed = on.follow("audit.md", {})
    assert "DICOM receiver" in printed[0] and "whole: lines 1 to" in printed[2]
    assert "1 heads that were kept elsewhere fit" in printed[3]


@pytest.mark.long
def test_after_a_restore_the_log_goes_on_from_the_repository(short_folder: Path, new_dev: Callable[..., Dev]) -> None:
    objects = [RawObject.of(each) for each in ct_study(7720, 2)]
    with living_archive(short_folder, objects) as old:
        wait_for_events(old.dev, 1, "received")
        head = Head.parse(old.dev.pacs("audit", "head").stdout)
        keyring = Keyring.open(old.dev.data)

        def is_there() -> bool:
            with closing(open_volume(repository_named(old.dev.data, NAME), keyring)) as volume:
                return any(f'"head":"{head.digest}"'.encode() in each for each in copy_on(volume).values())

        wait_for(is_there, "the log does not get to the repository", timeout_s=90)
        with closing(open_volume(repository_named(old.dev.data, NAME), keyring)) as volume:
            assert heads_on(volume), "the first head goes at once"
        in_clear = [path.read_bytes() for path in (old.repository / "audit").rglob("*") if path.is_file()]
        assert len(in_clear) > 1 and not any(b"P7720" in each or b'"study"' in each for each in in_clear)
        lost = Lost(old.repository, old.sheet)
        old.destroy()
        new = new_dev(**QUICK)
        new.start()
        new.stop()
        lost.restore(new)
        new.start()
        said = new.pacs("audit", "verify", "--head", str(head)).stdout
        assert "heads that were kept elsewhere fit" in said and "0 seals signed" not in said
        texts = [str(each.get("text")) for each in events(new)]
        assert any(each.startswith("restore: ") for each in texts)
        assert len(events(new, "received")) == 1, "no event stands there twice"
        replaced = list((new.data / "audit" / "replaced").rglob("*.jsonl"))
        assert len(replaced) == 1, "what the new machine wrote before"
