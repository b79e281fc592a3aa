"""Who may ask over DICOMweb, and what hostile requests get: a clear answer, no more memory than theirs, nothing run."""

from __future__ import annotations

import base64
import io
import json
import socket
import zlib
from collections.abc import Iterator

import httpx
import pydicom
import pytest

from pacs.archive import tokens
from pacs.archive.replay import read
from pacs.cli.instance import Instance
from pacs.errors import NotFound, UsageError
from pacs.index.tokens import list_tokens
from pacs.storage.audit import AuditLog
from tests.synthetic import ct_dataset, ct_study, encode
from tests.web_server import ROOT, Web, body, content_type, store, web_server

DICOM = "application/dicom"


@pytest.fixture
def web(instance: Instance) -> Iterator[Web]:
    with web_server(instance, stow_size_bytes_max=1 << 20, transcode_size_bytes_max=1 << 20) as running:
        yield running


@pytest.fixture
def client(web: Web) -> Iterator[httpx.Client]:
    with web.client("read", "store") as made:
        yield made


def counts(instance: Instance) -> tuple[int, int]:
    """Rows, and files on the volumes, those on their way in too."""
    with instance.database.transaction() as connection:
        row = connection.execute("SELECT count(*) AS n FROM object").fetchone()
    assert row is not None
    return row["n"], sum(1 for volume in instance.volumes.all() for _file in volume.walk())


def test_nobody_asks_without_a_token(web: Web) -> None:
    made = ct_study(1, 1, 8, 8)[0]
    with web.client("store") as sender, web.client("read") as reader, web.client() as nobody:
        assert store(reader, [made.part10]).status_code == 403
        assert store(nobody, [made.part10]).status_code == 401
        assert store(sender, [made.part10]).status_code == 200
        study = f"{ROOT}/studies/{made.study_instance_uid}"
        one = f"{study}/series/1.2/instances/1.3"
        paths = ["/studies", "/series", "/instances", study.removeprefix(ROOT)]
        paths += [f"{one.removeprefix(ROOT)}{end}" for end in ("", "/metadata", "/frames/1", "/rendered", "/thumbnail")]
        for path in [*paths, f"{one.removeprefix(ROOT)}/bulkdata/7FE00010", "/nothing"]:
            answer = nobody.get(ROOT + path)
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert answer.headers["content-type"] == "application/problem+json"
            assert sender.get(ROOT + path).status_code == 403, path
        assert nobody.get("/wado?requestType=WADO").status_code == 401
        assert nobody.request("OPTIONS", ROOT).status_code == 401
        assert reader.get(study).status_code == 200
        secret = reader.headers["authorization"].removeprefix("Bearer ")
        basic = base64.b64encode(f"anybody:{secret}".encode()).decode()
        assert nobody.get(study, headers={"Authorization": f"Basic {basic}"}).status_code == 200
        for wrong in ("Bearer", "Bearer pacs_x", "Basic !", "Basic eA==", f"Digest {secret}", f"Bearer {secret[:-1]}"):
            assert nobody.get(study, headers={"Authorization": wrong}).status_code == 401, wrong
    refused = [each for each in AuditLog(web.instance.settings.data).newest_backwards() if each.get("e") == "login"]
    assert refused
    assert made.study_instance_uid not in json.dumps(refused)


def test_a_token_ends(web: Web) -> None:
    instance = web.instance
    kept, _secret = tokens.add_token(instance.database, instance.journal, "kept", ["read"], ["10.0.0.0/8"], 30)
    _gone, secret = tokens.add_token(instance.database, instance.journal, "gone", ["read"])
    _far, far = tokens.add_token(instance.database, instance.journal, "far", ["read"], ["10.0.0.0/8"])
    headers = {"Authorization": f"Bearer {secret}"}
    assert httpx.get(f"{web.url}{ROOT}/studies", headers=headers).status_code == 204
    assert httpx.get(f"{web.url}{ROOT}/studies", headers={"Authorization": f"Bearer {far}"}).status_code == 403
    tokens.remove_token(instance.database, instance.journal, "gone")
    assert httpx.get(f"{web.url}{ROOT}/studies", headers=headers).status_code == 401
    with instance.database.transaction() as connection:
        connection.execute("UPDATE api_token SET expires_at = now() - interval '1 second', networks = '{}'")
    assert httpx.get(f"{web.url}{ROOT}/studies", headers={"Authorization": f"Bearer {far}"}).status_code == 401
    with pytest.raises(NotFound):
        tokens.remove_token(instance.database, instance.journal, "gone")
    wrong = [("kept", ["read"], None), ("a b", ["read"], None), ("x", ["root"], None), ("x", [], None)]
    for name, scopes, days in [*wrong, ("x", ["read"], -1)]:
        with pytest.raises(UsageError):
            tokens.add_token(instance.database, instance.journal, name, scopes, days=days)
    # A rebuilt index has those that stand at the journal's end, as they were.
    lines = list(instance.journal.read())
    assert secret not in json.dumps(lines)
    with instance.database.transaction() as connection:
        connection.execute("DELETE FROM api_token")
        assert read(lines).standing.write(connection) == []
    assert [each.name for each in list_tokens(instance.database)] == ["far", "kept"]
    assert list_tokens(instance.database)[1] == kept


BROKEN = {
    "no boundary in it": (content_type(DICOM), b"no multipart at all", 400),
    "cut off": (content_type(DICOM), b"--X-boundary\r\nContent-Type: application/dicom\r\n\r\nabc", 400),
    "empty": (content_type(DICOM), b"", 400),
    "no parts": (content_type(DICOM), b"--X-boundary--\r\n", 400),
    "no boundary said": ('multipart/related; type="application/dicom"', body([]), 400),
    "long boundary": (content_type(DICOM, "x" * 5000), body([]), 400),
    "another type": (content_type("text/plain"), body([("Content-Type: text/plain", b"x")]), 415),
    "not multipart": (DICOM, b"x", 415),
    "part of another type": (content_type(DICOM), body([("Content-Type: text/html", b"<script>")]), 415),
    "huge part headers": (content_type(DICOM), body([("X-A: " + "a" * 100_000, b"x")]), 400),
    "many part headers": (content_type(DICOM), body([("\r\n".join(f"X-{n}: y" for n in range(9000)), b"x")]), 400),
    "too large": (content_type(DICOM), body([("Content-Type: application/dicom", b"x" * (2 << 20))]), 413),
    "no JSON": (content_type("application/dicom+json"), body([("Content-Type: application/dicom+json", b"{")]), 400),
    "deep JSON": (
        content_type("application/dicom+json"),
        body([("Content-Type: application/dicom+json", b"[" * 200_000)]),
        400,
    ),
}


def test_broken_bodies(client: httpx.Client, web: Web) -> None:
    for name, (kind, content, status) in BROKEN.items():
        answer = client.post(f"{ROOT}/studies", content=content, headers={"Content-Type": kind})
        found = (answer.status_code, answer.headers["content-type"], answer.json()["status"])
        assert found == (status, "application/problem+json", status), f"{name}: {answer.text}"
    assert counts(web.instance) == (0, 0), "nothing is left of them"


def test_objects_that_are_none(client: httpx.Client, web: Web) -> None:
    good = ct_study(2, 1, 8, 8)[0]
    verification = encode(ct_dataset(3, rows=8, columns=8)).part10.replace(
        b"1.2.840.10008.5.1.4.1.1.2\0", b"1.2.840.10008.1.1\0" + b"\0" * 8
    )
    bad = [b"", b"x", b"x" * 4000, bytes(128) + b"DICM" + b"\xff" * 400, good.part10[:-100], verification]
    answer = store(client, [*bad, good.part10])
    assert answer.status_code == 202
    response = pydicom.dataset.Dataset.from_json(answer.json())
    assert len(response.ReferencedSOPSequence) == 1
    failed = len(response.get("FailedSOPSequence", ())) + len(response.get("OtherFailuresSequence", ()))
    assert failed == len(bad)
    assert counts(web.instance) == (1, 1)
    answer = store(client, bad)
    assert answer.status_code == 409
    other = store(client, [good.part10], f"{ROOT}/studies/1.2.3")
    assert other.status_code == 409
    assert other.json()["00081198"]["Value"][0]["00081197"]["Value"] == [0xA900]
    assert store(client, [good.part10], f"{ROOT}/studies/{good.study_instance_uid}").status_code == 200
    assert store(client, [good.part10], f"{ROOT}/studies/..%2f..").status_code in (400, 404)


def test_metadata_and_bulk_data(client: httpx.Client, web: Web) -> None:
    ds = ct_dataset(21, rows=16, columns=16)
    pixels = ds.PixelData
    described = ds.to_json_dict()
    described["7FE00010"] = {"vr": "OW", "BulkDataURI": "pixels"}
    parts = [
        ("Content-Type: application/dicom+json", json.dumps([described]).encode()),
        ("Content-Type: application/octet-stream\r\nContent-Location: pixels", pixels),
    ]
    kind = content_type("application/dicom+json")
    answer = client.post(f"{ROOT}/studies", content=body(parts), headers={"Content-Type": kind})
    assert answer.status_code == 200, answer.text
    url = answer.json()["00081199"]["Value"][0]["00081190"]["Value"][0]
    stored = pydicom.dcmread(io.BytesIO(client.get(url, headers={"Accept": DICOM}).content))
    assert stored.PixelData == pixels
    assert stored.PatientName == ds.PatientName
    missing = client.post(f"{ROOT}/studies", content=body(parts[:1]), headers={"Content-Type": kind})
    assert missing.status_code == 409
    for wrong in (b"[1]", b'[{"00100010": 7}]', b'[{"00100010": {"vr": "PN", "Value": [[[[]]]]}}]', b'{"x": {}}'):
        answer = client.post(
            f"{ROOT}/studies", content=body([("Content-Type: application/dicom+json", wrong)]),
            headers={"Content-Type": kind},
        )  # fmt: skip
        assert answer.status_code in (400, 409), wrong
    assert counts(web.instance) == (1, 1)


def test_a_deflate_bomb_is_stored_and_not_looked_into(client: httpx.Client) -> None:
    ds = ct_dataset(22, rows=8, columns=8)
    ds.PixelData = bytes(16 << 20)  # 16 MiB of zeros, some kilobytes when deflated
    plain = encode(ds)
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    small = deflate.compress(plain.dataset) + deflate.flush()
    from pacs.model.part10 import encode_file_meta

    file = encode_file_meta(plain.sop_class_uid, plain.sop_instance_uid, "1.2.840.10008.1.2.1.99")
    assert store(client, [file + small + b"\0" * (len(small) % 2)]).status_code == 200
    url = f"{ROOT}/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"
    for end in ("/frames/1", "/rendered", "/bulkdata/7FE00010"):
        assert client.get(url + end).status_code == 400, end
    stored = client.get(url, headers={"Accept": f"{DICOM}; transfer-syntax=*"})
    assert len(stored.content) < 1 << 20


QUESTIONS = [
    "/studies?limit=-1", "/studies?limit=x", "/studies?offset=99999999", "/studies?nonsense=1",
    "/studies?includefield=x",
    "/studies?fuzzymatching=maybe", "/studies?" + "&".join(f"PatientID={n}" for n in range(200)),
    "/series?RequestAttributesSequence=1", "/studies/not-a-uid", "/studies/1..2", "/studies/%00",
    "/studies/1.2/series/1.3/instances/1.4/frames/%2e%2e", "/studies/" + "1." * 60 + "1",
]  # fmt: skip


def test_broken_questions(client: httpx.Client) -> None:
    for path in QUESTIONS:
        answer = client.get(ROOT + path)
        assert answer.status_code in (400, 404), f"{path}: {answer.text}"
        assert answer.headers["content-type"] == "application/problem+json", path


def test_path_tricks_lead_nowhere(client: httpx.Client, web: Web) -> None:
    made = ct_study(2, 1, 8, 8)[0]
    store(client, [made.part10])
    ds = pydicom.dcmread(io.BytesIO(made.part10))
    url = f"{ROOT}/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"
    for end in (
        "/bulkdata/../../../../etc/passwd",
        "/bulkdata/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/bulkdata/" + "1/" * 500,
    ):
        assert client.get(url + end).status_code in (400, 404)
    for host in ("evil.example/x", "a b", '"><script>'):
        answer = client.get(f"{ROOT}/studies", headers={"Host": host})
        assert answer.status_code == 400
    assert client.get("/internal-objects/etc/passwd").status_code == 404


def test_a_sender_that_goes_away_leaves_nothing(web: Web, client: httpx.Client) -> None:
    made = ct_study(4, 1)[0]
    start = f"--X-boundary\r\nContent-Type: {DICOM}\r\n\r\n".encode() + made.part10[:5000]
    request = (
        f"POST {ROOT}/studies HTTP/1.1\r\nHost: a\r\nAuthorization: {client.headers['authorization']}\r\n"
        f"Content-Type: {content_type(DICOM)}\r\nContent-Length: 100000\r\n\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", web.port)) as sender:
        sender.sendall(request + start)
    assert store(client, [made.part10]).status_code == 200  # the place that it had is free again
    with web.instance.database.transaction() as connection:
        connection.execute("SELECT")
    assert counts(web.instance)[0] == 1
