"""DICOMweb over HTTP on loopback: what is stored comes back, searched, whole, by frame and as a picture."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator

import httpx
import numpy as np
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from lxml import etree
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless

from pacs.archive.metadata import Metadata, path_of
from pacs.archive.metadata_writer import MetadataWriter
from pacs.archive.outgoing import Transcoding
from pacs.archive.retrieve import Retrieve
from pacs.archive.store import Arrival
from pacs.cli.instance import Instance
from pacs.storage.audit import AuditLog
from tests.synthetic import SyntheticObject, ct_dataset, ct_study, encode
from tests.web_server import ROOT, Web, parts_of, store, web_server

DICOM, JSON = "application/dicom", "application/dicom+json"
XML = 'multipart/related; type="application/dicom+xml"'
NATIVE_DICOM = "{http://dicom.nema.org/PS3.19/models/NativeDICOM}"


@pytest.fixture
def web(instance: Instance) -> Iterator[Web]:
    with web_server(instance) as running:
        yield running


@pytest.fixture
def client(web: Web) -> Iterator[httpx.Client]:
    with web.client("read", "store") as made:
        yield made


def url_of(made: SyntheticObject) -> str:
    ds = pydicom.dcmread(io.BytesIO(made.part10))
    return f"{ROOT}/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"


def multi_frame(seed: int, frames: int) -> Dataset:
    """An image of several frames of 8 bits."""
    ds = ct_dataset(seed, rows=16, columns=24)
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7.2"
    ds.NumberOfFrames, ds.BitsAllocated, ds.BitsStored, ds.HighBit = frames, 8, 8, 7
    pixels = np.random.default_rng(seed).integers(0, 255, (frames, 16, 24), dtype=np.uint8)
    ds.add_new(0x7FE00010, "OB", pixels.tobytes())
    return ds


def test_what_is_stored_comes_back_and_is_on_the_record(web: Web, client: httpx.Client) -> None:
    made = ct_study(7, 3)
    answer = store(client, [each.part10 for each in made])
    assert answer.status_code == 200, answer.text
    response = Dataset.from_json(answer.json())
    assert [item.ReferencedSOPInstanceUID for item in response.ReferencedSOPSequence] == [
        each.sop_instance_uid for each in made
    ]
    assert response.RetrieveURL == f"{web.url}{ROOT}/studies/{made[0].study_instance_uid}"

    study = f"{ROOT}/studies/{made[0].study_instance_uid}"
    parts = parts_of(client.get(study, headers={"Accept": 'multipart/related; type="application/dicom"'}))
    sent = {each.dataset for each in made}
    for headers, content in parts:
        assert headers["Content-Type"] == f"{DICOM}; transfer-syntax={ExplicitVRLittleEndian}"
        meta_end = 144 + int.from_bytes(content[140:144], "little")
        sent.remove(content[meta_end:])
    assert not sent

    again = store(client, [made[0].part10])  # the same bytes: success, nothing new kept
    assert again.status_code == 200

    one = client.get(url_of(made[1]), headers={"Accept": DICOM})
    assert one.headers["content-length"] == str(len(one.content))
    assert pydicom.dcmread(io.BytesIO(one.content)).SOPInstanceUID == made[1].sop_instance_uid
    known = client.get(url_of(made[1]), headers={"Accept": DICOM, "If-None-Match": one.headers["etag"]})
    assert (known.status_code, known.content) == (304, b"")

    events = list(AuditLog(web.instance.settings.data).newest_backwards())
    sending = [each for each in events if each.get("e") == "sending"]
    assert len(sending) == 1, "a study that is asked for again and again is one event"
    assert sending[0]["study"] == made[0].study_instance_uid
    assert sending[0]["by"]["user"]


def test_searches(client: httpx.Client) -> None:
    japanese = ct_dataset(3, rows=8, columns=8)
    japanese.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    japanese.PatientName, japanese.Modality = "Yamada^Tarou=山田^太郎=やまだ^たろう", "MR"
    item = Dataset()
    item.ScheduledProcedureStepID, item.RequestedProcedureID = "STEP1", "PROC1"
    japanese.RequestAttributesSequence = Sequence([item])
    files = [encode(japanese).part10, *(each.part10 for seed in (1, 2) for each in ct_study(seed, 3, 8, 8))]
    assert store(client, files).status_code == 200

    def search(path: str) -> list[Dataset]:
        answer = client.get(f"{ROOT}{path}")
        assert answer.status_code in (200, 204), answer.text
        return [Dataset.from_json(each) for each in answer.json()] if answer.content else []

    assert len(search("/studies")) == 3
    found = search("/studies?PatientName=山田*&includefield=StudyDescription,00081032")[0]
    assert str(found.PatientName) == "Yamada^Tarou=山田^太郎=やまだ^たろう"
    assert found.ModalitiesInStudy == "MR"
    assert found.StudyDescription == "Thorax 3"
    assert found.NumberOfStudyRelatedInstances == 1
    assert len(search("/studies?00100010=smith&fuzzymatching=true")) == 0
    assert len(search("/studies?PatientName=Muller&fuzzymatching=true")) == 2
    assert len(search("/studies?StudyDate=20260101-20261231&ModalitiesInStudy=CT")) == 2
    assert search("/studies?PatientID=nobody") == []
    uids = ",".join(each.StudyInstanceUID for each in search("/studies?ModalitiesInStudy=CT"))
    assert len(search(f"/studies?StudyInstanceUID={uids}")) == 2
    matched = search("/series?RequestAttributesSequence.ScheduledProcedureStepID=STEP1")
    assert [each.Modality for each in matched] == ["MR"]
    assert matched[0].RequestAttributesSequence[0].RequestedProcedureID == "PROC1"
    assert matched[0].PatientID == "P3", "a search of all series says whose they are"
    study = matched[0].StudyInstanceUID
    assert len(search(f"/studies/{study}/series")) == 1
    assert len(search(f"/studies/{study}/instances")) == 1
    assert len(search(f"/studies/{study}/series/{matched[0].SeriesInstanceUID}/instances")) == 1

    pages = [search(f"/instances?limit=3&offset={offset}") for offset in (0, 3, 6, 9)]
    assert [len(page) for page in pages] == [3, 3, 1, 0]
    assert len({each.SOPInstanceUID for page in pages for each in page}) == 7
    assert "299" in client.get(f"{ROOT}/instances?limit=3").headers["warning"]
    assert "299" in client.get(f"{ROOT}/studies?Rows=8").headers["warning"]
    assert "warning" not in client.get(f"{ROOT}/studies").headers
    empty = client.get(f"{ROOT}/studies?PatientID=nobody")
    assert (empty.status_code, empty.content) == (204, b"")


def test_answers_in_xml_are_the_native_model(client: httpx.Client) -> None:
    made = ct_study(5, 1, 8, 8)[0]
    store(client, [made.part10])
    for path in ("/studies", f"/studies/{made.study_instance_uid}/metadata"):
        answer = client.get(f"{ROOT}{path}", headers={"Accept": XML})
        documents = [etree.fromstring(content) for _headers, content in parts_of(answer)]
        name = documents[0].find(
            f".//{NATIVE_DICOM}DicomAttribute[@tag='00100010']/{NATIVE_DICOM}PersonName[@number='1']"
        )
        assert name is not None
        assert name.findtext(f"{NATIVE_DICOM}Alphabetic/{NATIVE_DICOM}FamilyName") == "Müller"


def test_metadata_is_what_pydicom_reads(client: httpx.Client) -> None:
    for seed, syntax in ((9, ExplicitVRLittleEndian), (10, ImplicitVRLittleEndian)):
        metadata_is_what_pydicom_reads(client, seed, syntax)


def metadata_is_what_pydicom_reads(client: httpx.Client, seed: int, syntax: str) -> None:
    ds = ct_dataset(seed, rows=32, columns=32)
    ds.SliceThickness, ds.PixelSpacing = "1.50", ["0.5", "0.25"]
    ds.ImageComments = "first line\r\nsecond"
    ds.add_new(0x00091001, "UN", b"private")
    item = Dataset()
    item.CodeValue, item.CodeMeaning = "T-D3000", "Brust"
    nested = Dataset()
    nested.AnatomicRegionSequence = Sequence([item])
    ds.DerivationCodeSequence = Sequence([nested, Dataset()])
    ds.add_new(0x60003000, "OW", bytes(range(256)) * 8)
    store(client, [encode(ds, syntax).part10])
    answer = client.get(f"{ROOT}/studies/{ds.StudyInstanceUID}/metadata", headers={"Accept": JSON}).json()
    assert len(answer) == 1
    got: dict[str, bytes] = {}

    def bulk(tag: str, _vr: str, uri: str) -> bytes:
        got[tag] = client.get(uri, headers={"Accept": "application/octet-stream"}).content
        return got[tag]

    found = Dataset.from_json(answer[0], bulk_data_uri_handler=bulk)
    assert got.keys() >= {"7FE00010"}
    del found.AvailableTransferSyntaxUID
    sent = Dataset.from_json(ds.to_json())
    for element in sent:
        if element.tag != 0x00091001 or syntax == ExplicitVRLittleEndian:
            assert found[element.tag].value == element.value, element
    assert len(found) == len(sent)
    kept = client.get(f"{ROOT}/studies/{ds.StudyInstanceUID}/metadata", headers={"Accept": JSON})
    assert kept.json() == answer, "from its file it is the same"


def test_settled_studies_have_their_metadata(instance: Instance) -> None:
    def store_one(number: int) -> None:
        made = encode(ct_dataset(31, number, 8, 8))
        instance.store().store(
            Arrival(made.dataset, made.sop_class_uid, made.sop_instance_uid, made.transfer_syntax_uid)
        )

    plain = Retrieve(instance.database, instance.volumes)
    metadata = Metadata(plain, instance.volumes, Transcoding(1 << 20))
    writer = MetadataWriter(metadata, 0, threading.Event())
    store_one(1)
    study = ct_dataset(31).StudyInstanceUID
    assert (writer.run(), writer.run()) == (1, 0)
    file = instance.volumes.tier(1)[0].root / path_of(study)
    first = file.read_bytes()
    assert len(metadata.of_study(study).instances) == 1
    store_one(2)
    assert len(metadata.of_study(study).instances) == 2, "what is kept of fewer objects is not given"
    file.write_bytes(first)
    assert writer.run() == 1
    assert file.read_bytes() != first
    file.write_bytes(b"no file of ours")
    assert len(metadata.of_study(study).instances) == 2
    waiting = MetadataWriter(metadata, 3600, threading.Event())
    store_one(3)
    assert waiting.run() == 0, "it has not settled"
    assert writer.run() == 1


def test_bulk_data_by_ranges(client: httpx.Client) -> None:
    made = ct_study(8, 1)[0]
    store(client, [made.part10])
    pixels = pydicom.dcmread(io.BytesIO(made.part10)).PixelData
    url = f"{url_of(made)}/bulkdata/7FE00010"
    for wish, first, after in (("0-99", 0, 100), ("100-", 100, len(pixels)), ("-7", len(pixels) - 7, len(pixels))):
        answer = client.get(url, headers={"Accept": "application/octet-stream", "Range": f"bytes={wish}"})
        assert (answer.status_code, answer.content) == (206, pixels[first:after])
        assert answer.headers["content-range"] == f"bytes {first}-{after - 1}/{len(pixels)}"
    beyond = client.get(url, headers={"Accept": "application/octet-stream", "Range": f"bytes={len(pixels)}-"})
    assert beyond.status_code == 416
    assert parts_of(client.get(url))[0][1] == pixels


def test_frames_native_and_big_endian(client: httpx.Client) -> None:
    ds = multi_frame(4, 5)
    pixels = np.frombuffer(ds.PixelData, np.uint8).reshape(5, 16, 24)
    store(client, [encode(ds).part10])
    url = url_of(encode(ds))
    got = parts_of(client.get(f"{url}/frames/2,5"))
    assert [content for _headers, content in got] == [pixels[1].tobytes(), pixels[4].tobytes()]
    one = client.get(f"{url}/frames/3", headers={"Accept": "application/octet-stream"})
    assert one.content == pixels[2].tobytes()
    for wrong in ("0", "6", "1,x", "-1", "1,,2"):
        assert client.get(f"{url}/frames/{wrong}").status_code in (400, 404)

    big = ct_dataset(6, rows=8, columns=8)
    little = big.PixelData
    big["PixelData"].value = np.frombuffer(little, "<u2").astype(">u2").tobytes()
    buffer = io.BytesIO()
    big.file_meta = pydicom.dataset.FileMetaDataset()
    big.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    pydicom.dcmwrite(buffer, big, implicit_vr=False, little_endian=False, enforce_file_format=True)
    assert store(client, [buffer.getvalue()]).status_code == 200
    answer = client.get(f"{url_of(encode(ct_dataset(6, rows=8, columns=8)))}/frames/1")
    assert parts_of(answer)[0][1] == little


def compressed(ds: Dataset, with_table: bool) -> tuple[bytes, list[bytes]]:
    """The same compressed with JPEG-LS, and its frames."""
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.compress(JPEGLSLossless, generate_instance_uid=False)
    frames = list(pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=int(ds.NumberOfFrames)))
    ds.PixelData = encapsulate(frames, fragments_per_frame=2, has_bot=with_table)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue(), frames


def test_frames_of_fragments(client: httpx.Client) -> None:
    for with_table in (True, False):
        frames_of_fragments(client, with_table)


def frames_of_fragments(client: httpx.Client, with_table: bool) -> None:
    ds = multi_frame(11 + with_table, 4)
    pixels = np.frombuffer(ds.PixelData, np.uint8).reshape(4, 16, 24)
    url = url_of(encode(ds))
    file, frames = compressed(ds, with_table)
    assert store(client, [file]).status_code == 200
    stored = 'multipart/related; type="image/jls"; transfer-syntax=1.2.840.10008.1.2.4.80'
    for accept in (stored, 'multipart/related; type="application/octet-stream"; transfer-syntax=*', "*/*"):
        headers, content = parts_of(client.get(f"{url}/frames/3", headers={"Accept": accept}))[0]
        assert content.rstrip(b"\0") == frames[2].rstrip(b"\0")
        assert headers["Content-Type"] == "image/jls; transfer-syntax=1.2.840.10008.1.2.4.80"
    plain = client.get(f"{url}/frames/3", headers={"Accept": 'multipart/related; type="application/octet-stream"'})
    assert parts_of(plain)[0][1] == pixels[2].tobytes()
    assert client.get(f"{url}/frames/1", headers={"Accept": "image/jp2"}).status_code == 406
    whole = client.get(url, headers={"Accept": f"{DICOM}; transfer-syntax={JPEGLSLossless}"})
    assert whole.content[-100:] == file[-100:]
    decoded = client.get(url, headers={"Accept": DICOM})  # no transfer syntax said: uncompressed
    assert (pydicom.dcmread(io.BytesIO(decoded.content)).pixel_array == pixels).all()


def test_rendered(client: httpx.Client) -> None:
    made = ct_study(12, 1, 32, 64)[0]
    store(client, [made.part10])
    pixels = pydicom.dcmread(io.BytesIO(made.part10)).pixel_array.astype(float)

    def picture(path: str, accept: str = "image/png") -> Image.Image:
        answer = client.get(f"{url_of(made)}{path}", headers={"Accept": accept})
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == accept
        return Image.open(io.BytesIO(answer.content))

    windowed = np.asarray(picture("/rendered?window=1000,500,linear"))
    expected = np.clip(((pixels - 999.5) / 499 + 0.5), 0, 1) * 255
    assert np.abs(windowed - expected).max() <= 1
    assert picture("/frames/1/rendered?viewport=32,32").size == (32, 16)
    assert picture("/rendered?viewport=,,8,4,16,8").size == (16, 8)
    assert picture("/rendered", "image/jpeg").size == (64, 32)
    assert picture("/rendered", "image/gif").size == (64, 32)
    assert picture("/thumbnail").size == (200, 100)
    for wrong in ("window=1", "window=a,b", "window=1,0", "window=nan,1", "viewport=0,1", "viewport=9999999,1",
                  "viewport=,,60,0,10,10", "quality=0"):  # fmt: skip
        assert client.get(f"{url_of(made)}/rendered?{wrong}").status_code == 400, wrong


def test_wado_uri(client: httpx.Client) -> None:
    made = ct_study(13, 1, 32, 64)[0]
    store(client, [made.part10])
    ds = pydicom.dcmread(io.BytesIO(made.part10))
    uri = f"/wado?requestType=WADO&studyUID={ds.StudyInstanceUID}&seriesUID={ds.SeriesInstanceUID}&objectUID="
    uri += ds.SOPInstanceUID
    assert client.get(uri).headers["content-type"] == "image/jpeg"
    assert client.get(f"{uri}&contentType=application/dicom").content[128:132] == b"DICM"
    shown = Image.open(
        io.BytesIO(client.get(f"{uri}&contentType=image/png&rows=16&windowCenter=9&windowWidth=5").content)
    )
    assert shown.size == (32, 16)
    assert client.get(f"{uri}&anonymize=yes").status_code == 400
    assert client.get("/wado?requestType=WADO").status_code == 400


def test_an_independent_client(web: Web, client: httpx.Client) -> None:
    """dicomweb-client stores, searches, and retrieves whole, by frame, and metadata."""
    files = [pydicom.dcmread(io.BytesIO(each.part10)) for each in ct_study(14, 3)]
    headers = {"Authorization": client.headers["authorization"]}
    other = DICOMwebClient(f"{web.url}{ROOT}", headers=headers)
    other.store_instances(datasets=files)
    found = other.search_for_studies(search_filters={"PatientID": "P14"})
    assert len(found) == 1
    study, series = files[0].StudyInstanceUID, files[0].SeriesInstanceUID
    assert {each.SOPInstanceUID for each in other.retrieve_study(study)} == {each.SOPInstanceUID for each in files}
    assert len(other.retrieve_series_metadata(study, series)) == 3
    frames = other.retrieve_instance_frames(study, series, files[1].SOPInstanceUID, [1])
    assert frames[0] == files[1].PixelData
    png = other.retrieve_instance_rendered(study, series, files[1].SOPInstanceUID, media_types=("image/png",))
    assert Image.open(io.BytesIO(png)).size == (64, 64)
    assert len(other.search_for_instances(study, limit=2)) == 2


def test_capabilities(client: httpx.Client) -> None:
    wadl = etree.fromstring(client.request("OPTIONS", f"{ROOT}/").content)
    paths = {each.get("path") for each in wadl.iter("{http://wadl.dev.java.net/2009/02}resource")}
    assert "studies/{study}/series/{series}/instances/{instance}/frames/{frames}" in paths
    answer = client.request("OPTIONS", ROOT, headers={"Accept": "application/json"})
    assert {each["method"] for each in json.loads(answer.content)["resources"]} == {"GET", "POST"}
