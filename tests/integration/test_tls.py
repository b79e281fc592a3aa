"""DICOM over TLS: DCMTK's tools as devices, certificates bound to them and replaced while it runs."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_context, evt
from pynetdicom.pdu_primitives import UserIdentityNegotiation

from tests import peer
from tests.certificates import Certificate, make_certificate
from tests.dcmtk import dcmtk
from tests.fix_instance import Dev
from tests.peer import RawObject, noted, rejection_in
from tests.synthetic import ct_study

VERIFICATION, CT = "1.2.840.10008.1.1", "1.2.840.10008.5.1.4.1.1.2"
STUDY_ROOT_MOVE, EXPLICIT = "1.2.840.10008.5.1.4.1.2.2.2", "1.2.840.10008.1.2.1"


@pytest.fixture(scope="module")
def secure(short_folder: Path) -> Iterator[Dev]:
    """A `pacs dev` as strict as the appliance, with a port for TLS."""
    running = Dev(
        short_folder / f"dev{uuid.uuid4().hex[:6]}",
        {
            "PACS_RECEIVERS": "1",  # each receiver goes on with the certificate that it had
            "PACS_ANY_DEVICE_FROM_LOOPBACK": "0",
            "PACS_ARTIM_S": "4",
        },
        words=("--dicom-tls-port", "0"),
    ).start()
    running.pacs("device", "add", "tester", "--ae-title", "TESTER", "--host", "127.0.0.1", "--port", "11119")
    yield running
    running.stop()
    shutil.rmtree(running.data, ignore_errors=True)


def echo(dev: Dev, *words: str, calling: str = "TESTER", port: int | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [dcmtk("echoscu"), "-v", "-aet", calling, "-aec", "PACS", *words, "127.0.0.1", str(port or dev.dicom_tls_port)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def own_certificate(dev: Dev) -> str:
    """SHA-256 of the certificate that the archive shows now."""
    context = client_context()
    with socket.create_connection(("127.0.0.1", dev.dicom_tls_port)) as raw, context.wrap_socket(raw) as wrapped:
        import hashlib

        return hashlib.sha256(wrapped.getpeercert(binary_form=True) or b"").hexdigest()


def client_context(certificate: Certificate | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if certificate:
        context.load_cert_chain(certificate.certificate, certificate.key)
    return context


def refusals(dev: Dev, kind: str, calling: str, detail: str = "") -> list[dict[str, Any]]:
    """What was noted, of a detail if it says one; the note is written a moment after the refusal."""
    ends = time.monotonic() + 15
    while True:
        rows = json.loads(dev.pacs("refusal", "list", "--json").stdout)
        found = [
            row for row in rows if row["kind"] == kind and row["calling_ae"] == calling and detail in row["detail"]
        ]
        if found or time.monotonic() > ends:
            return found
        time.sleep(0.2)


def associate(dev: Dev, calling: str, context: ssl.SSLContext | None, items: list[Any] | None = None) -> Any:
    received: list[Any] = []
    assoc = AE(calling).associate(
        "127.0.0.1", dev.dicom_tls_port if context else dev.dicom_port, ae_title="PACS",
        contexts=[build_context(VERIFICATION)], ext_neg=items or [], evt_handlers=noted(received),
        tls_args=(context, "localhost") if context else None,
    )  # fmt: skip
    assoc.received_pdus = received
    return assoc


# --- the connection --------------------------------------------------------------------------------------------------


def test_dcmtk_verifies_and_stores_over_tls(secure: Dev, tmp_path: Path) -> None:
    trusted = str(secure.data / "identity" / "dicom-tls" / "certificate.pem")
    assert echo(secure, "+tla", "+cf", trusted).returncode == 0
    before = len(list((secure.data / "tier1" / "objects").rglob("*.dcm")))
    for made in ct_study(71, 3, 64, 64):
        made.write(tmp_path)
    words = [dcmtk("storescu"), "+sd", "-aet", "TESTER", "-aec", "PACS", "+tla", "+cf", trusted]
    subprocess.run([*words, "127.0.0.1", str(secure.dicom_tls_port), str(tmp_path)], check=True, timeout=60)
    assert len(list((secure.data / "tier1" / "objects").rglob("*.dcm"))) == before + 3


def test_large_objects_and_answers_pass_over_tls_unchanged(secure: Dev) -> None:
    """An object of many TLS records arrives; while a C-MOVE of it runs, buffered bytes are seen (is it cancelled?)."""
    study = ct_study(72, 2, 1024, 1024)
    ae = AE("TESTER")
    ae.maximum_pdu_size = 0
    assoc = ae.associate(
        "127.0.0.1", secure.dicom_tls_port, contexts=[build_context(CT, EXPLICIT)], ae_title="PACS",
        tls_args=(client_context(), "localhost"),
    )  # fmt: skip
    assert [peer.store_on(assoc, RawObject.of(made)) for made in study] == [0x0000, 0x0000]
    assoc.release()
    files = [path.read_bytes() for path in (secure.data / "tier1" / "objects").rglob("*.dcm")]
    assert all(any(content.endswith(made.dataset) for content in files) for made in study)
    taken: dict[str, RawObject] = {}
    secure_get(secure, study[0].study_instance_uid, taken)
    assert {uid: raw.dataset for uid, raw in taken.items()} == {made.sop_instance_uid: made.dataset for made in study}


def secure_get(dev: Dev, study: str, taken: dict[str, RawObject]) -> None:
    from pynetdicom import build_role

    def take(event: evt.Event) -> int:
        raw = RawObject(CT, str(event.request.AffectedSOPInstanceUID), EXPLICIT, event.request.DataSet.getvalue())
        taken[raw.sop_instance_uid] = raw
        return 0x0000

    query = Dataset()
    query.QueryRetrieveLevel, query.StudyInstanceUID = "STUDY", study
    assoc = AE("TESTER").associate(
        "127.0.0.1", dev.dicom_tls_port, contexts=[build_context(peer.STUDY_ROOT_GET), build_context(CT, EXPLICIT)],
        ae_title="PACS", ext_neg=[build_role(CT, scp_role=True)], evt_handlers=[(evt.EVT_C_STORE, take)],
        tls_args=(client_context(), "localhost"),
    )  # fmt: skip
    assert [status.Status for status, _ in assoc.send_c_get(query, peer.STUDY_ROOT_GET)][-1] == 0x0000
    assoc.release()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_are_spoken(secure: Dev, version: ssl.TLSVersion) -> None:
    context = client_context()
    context.minimum_version = context.maximum_version = version
    assoc = associate(secure, "TESTER", context)
    assert assoc.is_established
    assert assoc.send_c_echo().Status == 0x0000
    assoc.release()


@pytest.mark.parametrize(
    ("maximum", "suites"), [(ssl.TLSVersion.TLSv1_1, "ALL:@SECLEVEL=0"), (ssl.TLSVersion.TLSv1_2, "AES256-SHA")]
)
def test_older_versions_and_suites_are_not(secure: Dev, maximum: ssl.TLSVersion, suites: str) -> None:
    context = client_context()
    context.set_ciphers(suites)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, maximum
    with socket.create_connection(("127.0.0.1", secure.dicom_tls_port)) as raw, pytest.raises(OSError):
        context.wrap_socket(raw)
    assert refusals(secure, "TLS", "")


def test_plain_dicom_on_the_tls_port_is_refused_and_noted(secure: Dev) -> None:
    assert echo(secure).returncode != 0
    assert refusals(secure, "TLS", "")
    assert echo(secure, "+tla", "-ic").returncode == 0


def test_a_stalled_handshake_holds_up_nobody_and_ends(secure: Dev) -> None:
    stalled = [socket.create_connection(("127.0.0.1", secure.dicom_tls_port)) for _ in range(5)]
    stalled[0].sendall(b"\x16\x03\x01\x02")  # the start of a ClientHello
    try:
        assert echo(secure, "+tla", "-ic").returncode == 0
        for each in stalled:
            each.settimeout(30)
            assert each.recv(100) == b""
    finally:
        for each in stalled:
            each.close()


# --- certificates ----------------------------------------------------------------------------------------------------


def test_a_new_certificate_counts_without_a_restart_and_a_broken_one_does_not(secure: Dev, tmp_path: Path) -> None:
    before = own_certificate(secure)
    other = make_certificate(tmp_path, "other", "ec")
    secure.pacs("tls", "install", str(other.key), str(other.certificate))
    assert before != other.sha256 == own_certificate(secure)
    certificate = secure.data / "identity" / "dicom-tls" / "certificate.pem"
    good = certificate.read_text()
    certificate.write_text("half a certificate")
    assert own_certificate(secure) == other.sha256
    assert secure.pacs("tls", "show", check=False).returncode == 3
    certificate.write_text(good)
    assert echo(secure, "+tla", "-ic").returncode == 0
    assert secure.pacs("tls", "install", str(other.key), str(make_certificate(tmp_path, "third").certificate),
                       check=False).returncode == 3  # fmt: skip
    assert own_certificate(secure) == other.sha256


def test_a_certificate_is_bound_to_its_device(secure: Dev, tmp_path: Path) -> None:
    mine, others = make_certificate(tmp_path, "mine"), make_certificate(tmp_path, "others", "ec")
    for each in (mine, others):
        assert secure.pacs("tls", "trust", str(each.certificate)).stdout.strip() == each.sha256
    for name, title, sha256 in (("bound", "BOUND", mine.sha256), ("other", "OTHER", others.sha256)):
        secure.pacs("device", "add", name, "--ae-title", title, "--host", "127.0.0.1", "--port", "11119",
                    "--certificate-sha256", sha256)  # fmt: skip
    assert echo(secure, "+tls", str(mine.key), str(mine.certificate), "-ic", calling="BOUND").returncode == 0
    # another device's certificate, none, no TLS
    for words, detail in (
        (("+tls", str(others.key), str(others.certificate), "-ic"), others.sha256),
        (("+tla", "-ic"), "called over TLS without a certificate"),
    ):
        assert echo(secure, *words, calling="BOUND").returncode != 0
        assert any(row["detail"] == detail for row in refusals(secure, "TLS", "BOUND", detail))
    assert echo(secure, calling="BOUND", port=secure.dicom_port).returncode != 0
    # a device without one of its own cannot come with another's
    assert echo(secure, "+tls", str(mine.key), str(mine.certificate), "-ic").returncode != 0
    assert refusals(secure, "TLS", "TESTER")[0]["detail"] == "certificate of bound"
    assert echo(secure, "+tla", "-ic").returncode == 0
    # one that we do not trust is none
    stranger = make_certificate(tmp_path, "stranger")
    assert not associate(secure, "BOUND", client_context(stranger)).is_established


# --- our own associations --------------------------------------------------------------------------------------------


def test_a_move_to_a_device_that_is_called_over_tls(secure: Dev, tmp_path: Path) -> None:
    study = ct_study(73, 2, 64, 64)
    secure.pacs("device", "add", "mover", "--ae-title", "MOVER", "--host", "127.0.0.1", "--port", "11119")
    assert set(peer.store(secure.dicom_port, map(RawObject.of, study), calling="MOVER")) == {0x0000}
    device, wrong = make_certificate(tmp_path, "device"), make_certificate(tmp_path, "wrong")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(device.certificate, device.key)
    came = []
    ae = AE("TAKER")
    ae.add_supported_context(CT, EXPLICIT)
    server = ae.start_server(
        ("127.0.0.1", port), block=False, ssl_context=server_context,
        evt_handlers=[(evt.EVT_C_STORE, lambda event: came.append(event.request.AffectedSOPInstanceUID) or 0)],
    )  # fmt: skip
    try:
        for pinned, expected in ((wrong.sha256, 0xA702), (device.sha256, 0x0000)):
            secure.pacs("device", "remove", "taker", check=False)
            secure.pacs("device", "add", "taker", "--ae-title", "TAKER", "--host", "127.0.0.1", "--port", str(port),
                        "--tls", "--certificate-sha256", pinned)  # fmt: skip
            query = Dataset()
            query.QueryRetrieveLevel, query.StudyInstanceUID = "STUDY", study[0].study_instance_uid
            assoc = AE("MOVER").associate(
                "127.0.0.1", secure.dicom_port, contexts=[build_context(STUDY_ROOT_MOVE)], ae_title="PACS"
            )
            responses = list(assoc.send_c_move(query, "TAKER", STUDY_ROOT_MOVE))
            assoc.release()
            assert responses[-1][0].Status == expected
    finally:
        server.shutdown()
    assert set(came) == {made.sop_instance_uid for made in study}


# --- who the user is -------------------------------------------------------------------------------------------------


def user(kind: int, name: str, passcode: str = "", wants_answer: bool = True) -> UserIdentityNegotiation:
    item = UserIdentityNegotiation()
    item.user_identity_type, item.primary_field = kind, name.encode()
    if passcode:
        item.secondary_field = passcode.encode()
    item.positive_response_requested = wants_answer
    return item


def outcome(dev: Dev, item: UserIdentityNegotiation, is_tls: bool = True) -> tuple[bool, bool]:
    """Whether the association is taken, and whether the identity is confirmed."""
    assoc = associate(dev, "TESTER", client_context() if is_tls else None, [item])
    if not assoc.is_established:
        assert rejection_in(assoc.received_pdus)
        return False, False
    confirmed = any(isinstance(each, UserIdentityNegotiation) for each in assoc.acceptor.user_information)
    assoc.release()
    return True, confirmed


def test_users(secure: Dev) -> None:
    assert outcome(secure, user(1, "anna")) == (True, True)
    assert outcome(secure, user(1, "anna"), is_tls=False) == (True, True)
    assert outcome(secure, user(1, "anna", wants_answer=False)) == (True, False)
    assert outcome(secure, user(3, "ticket")) == (True, False)
    assert outcome(secure, user(5, "token")) == (True, False)
    assert outcome(secure, user(2, "anna", "Secret-Word")) == (True, False)  # there is nothing to compare it with
    assert outcome(secure, user(2, "anna", "Secret-Word"), is_tls=False) == (False, False)
    assert "not encrypted" in refusals(secure, "user identity", "TESTER")[0]["reason"]
    secure.pacs("dicom-user", "add", "anna", "--passcode", "Secret-Word")
    assert secure.pacs("dicom-user", "list").stdout == "anna\n"
    assert outcome(secure, user(2, "anna", "Secret-Word")) == (True, True)
    assert outcome(secure, user(2, "anna", "Secret-Wort")) == (False, False)
    assert outcome(secure, user(2, "bert", "Secret-Word")) == (False, False)
    assert echo(secure, "+tla", "-ic").returncode == 0
    kept = (secure.data / "config" / "dicom-users.json").read_text()
    for text in (secure.log(), kept, secure.pacs("refusal", "list", "--json").stdout):
        assert "Secret-Wor" not in text
    secure.pacs("dicom-user", "remove", "anna")


def test_an_identity_of_a_kind_that_is_not_defined_is_ignored(secure: Dev) -> None:
    from tests.integration.test_negotiation import _request

    content = _request(b"TESTER")
    item = b"\x58\0" + (10).to_bytes(2, "big") + b"\x09\1" + (4).to_bytes(2, "big") + b"some" + b"\0\0"
    content = content.replace(b"\x50\0" + content[content.index(b"\x50\0\0") + 2 :][:2], b"\x50\0\0\x1f", 1) + item
    content = content[:2] + (len(content) - 6).to_bytes(4, "big") + content[6:]
    with socket.create_connection(("127.0.0.1", secure.dicom_port), timeout=10) as sock:
        sock.sendall(content)
        assert sock.recv(1) == b"\x02"


def test_a_user_can_be_demanded(new_dev: Callable[..., Dev]) -> None:
    dev = new_dev(PACS_USER_IDENTITY="required")
    dev.words = ("--dicom-tls-port", "0")
    dev.start()
    dev.pacs("dicom-user", "add", "anna", "--passcode", "Secret-Word")
    assert outcome(dev, user(2, "anna", "Secret-Word")) == (True, True)
    for item in (user(1, "anna"), user(2, "anna", "wrong-word"), user(5, "token")):
        assert outcome(dev, item) == (False, False)
    assert not associate(dev, "TESTER", client_context()).is_established
