"""A support bundle has no patient's data in it, whatever is in the archive, its queues and its log."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from tests import peer
from tests.fix_instance import Dev
from tests.peer import RawObject
from tests.synthetic import ct_dataset, encode

UID = "1.2.826.0.1.3680043.8.498.77661199"
#: Who is in the archive: character set, name, and how its words are encoded in a data set.
PATIENTS = [
    ("ISO_IR 100", "Zwötterhagen^Quirina^Überlingen", "latin-1"),
    ("ISO_IR 192", "Łyszczyńska^Żaneta", "utf-8"),
    ("ISO_IR 144", "Люксембург^Роза", "iso8859-5"),
    ("GB18030", "Wangxiaodongzz^Kleinost=王^小东", "gb18030"),
    (["", "ISO 2022 IR 87"], "Yamadazzaki^Taroubei=山田^太郎=やまだ^たろう", "iso2022_jp"),
    ("", "Obrighnasaigh^Siobhan", "ascii"),
]
CALLERS = ("ZWETSCHGENCT7", "QUIRINAS_ROOM")
DEVICE = "Zwötterhagens Geraet"


def planted_dataset(number: int, instance: int = 1) -> Dataset:
    """An object of the patient of that number; each thing in it that a person or a device writes is unusual."""
    charset, name, _codec = PATIENTS[number]
    ds = ct_dataset(9000 + number, instance)
    ds.SpecificCharacterSet = charset
    ds.PatientName, ds.PatientID = name, f"ZQX-{number}4711-99887"
    ds.OtherPatientIDs = f"OPIZQ{number}5511"
    ds.IssuerOfPatientID = f"Kreiskrankenanstaltz{number}"
    ds.PatientBirthDate, ds.AccessionNumber = f"193{number}0723", f"ACCQ{number}7788Z"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = f"{UID}.1{number}041", f"{UID}.1{number}042.1"
    ds.SOPInstanceUID = f"{UID}.1{number}043.{instance}"
    ds.StudyID, ds.StudyDescription = f"SIDZQ{number}3", f"Kniekehlenzerrung{number}"
    ds.SeriesDescription, ds.ProtocolName = f"Hufrollenserie{number}", f"Protokollqz{number}"
    ds.InstitutionName, ds.StationName = f"Pferdeklinikqz{number}", f"STATZQ{number}"
    ds.ReferringPhysicianName = f"Doctorzwackel{number}^Eusebius"
    return ds


def sent(ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> RawObject:
    return RawObject.of(encode(ds, syntax))


@pytest.fixture(scope="module")
def planted(short_folder: Path) -> Iterator[tuple[Dev, list[str]]]:
    """An archive in which everything is of somebody, and all that its services logged."""
    dev = Dev(short_folder / "bundle", {"PACS_RECEIVERS": "1", "PACS_SETTLE_S": "0"}).start()
    try:
        dev.pacs("device", "add", DEVICE, "--ae-title", "QUIRINA_AE", "--host", "127.0.0.9", "--port", "11199")
        syntaxes = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
        for number in range(len(PATIENTS)):
            both = [sent(planted_dataset(number, each), syntaxes[number % 2]) for each in (1, 2)]
            assert peer.store(dev.dicom_port, both, CALLERS[number % 2]) == [0, 0]
        _contradict(dev)
        _refuse(dev)
        _damage(dev)
        yield dev, _secrets(dev)
    finally:
        dev.stop()


def _contradict(dev: Dev) -> None:
    """Other content under a known UID; another patient in a known study; a known id with another name."""
    other = planted_dataset(0)
    other.StudyDescription = "Widerspruchsbefundz"
    moved = planted_dataset(1, 7)
    moved.PatientID, moved.PatientName = "ZQX-VRSCHBN-31337", "Verwechslungz^Ottokar"
    renamed = planted_dataset(2, 8)
    renamed.StudyInstanceUID, renamed.PatientName = f"{UID}.20099", "Umbenanntz^Kunigunde"
    assert peer.store(dev.dicom_port, [sent(each) for each in (other, moved, renamed)]) == [0, 0, 0]


def _refuse(dev: Dev) -> None:
    """A data set that is not what its message says, one that cannot be read, and one that is cut off."""
    good = sent(planted_dataset(3, 9))
    lying = RawObject(good.sop_class_uid, f"{UID}.666013.1", good.transfer_syntax_uid, good.dataset)
    nonsense = RawObject(good.sop_class_uid, f"{UID}.666013.2", good.transfer_syntax_uid, b"Quirina Zwoetterhagen" * 9)
    cut = RawObject(good.sop_class_uid, f"{UID}.666013.3", good.transfer_syntax_uid, good.dataset[:333])
    assert all(peer.store(dev.dicom_port, [each], "REFUSEDZQ")[0] not in (0, None) for each in (lying, nonsense, cut))


def _damage(dev: Dev) -> None:
    """An object that is lost, and found to be when it is asked for."""
    with psycopg.connect(f"host={dev.data}/run dbname=pacs user=pacs") as connection:
        row = connection.execute(
            "SELECT path FROM copy JOIN object USING (object_key) WHERE sop_instance_uid = %s", (f"{UID}.14043.1",)
        ).fetchone()
    assert row is not None
    (dev.data / "tier1" / row[0]).write_bytes(b"Zwoetterhagen was here")
    dev.pacs("scrub", "run", "--all", check=False)
    dev.pacs("reconcile", "run", check=False)


def _secrets(dev: Dev) -> list[str]:
    """All that is somebody's: what was planted, and every text that the index, its queues and names hold of it."""
    found = {*CALLERS, DEVICE, "REFUSEDZQ", "QUIRINA_AE", "ZQX-VRSCHBN-31337", f"{UID}.666013.1"}
    for number in range(len(PATIENTS)):
        found |= {str(each.value) for each in planted_dataset(number) if each.VR not in ("OW", "US", "CS", "IS", "SQ")}
    columns = {
        "patient": "patient_id patient_name issuer_of_patient_id patient_birth_date", "patient_name": "name_key",
        "study": "study_instance_uid accession_number study_description study_id referring_physician_name",
        "series": "series_instance_uid series_description institution_name station_name protocol_name",
        "object": "sop_instance_uid encode(sha256,'hex')", "copy": "path", "association": "calling_ae",
        "refusal": "calling_ae sop_instance_uid", "device": "name ae_title",
    }  # fmt: skip
    with psycopg.connect(f"host={dev.data}/run dbname=pacs user=pacs") as connection:
        for table, names in columns.items():
            for name in names.split():
                found |= {row[0] for row in connection.execute(f"SELECT {name}::text FROM {table}".encode())}
        assert connection.execute("SELECT count(*) FROM conflict").fetchone()[0] >= 3  # type: ignore[index]
        assert connection.execute("SELECT count(*) FROM refusal").fetchone()[0] >= 2  # type: ignore[index]
    pieces = {piece for each in found for piece in ("".join(c if c.isalnum() else " " for c in each)).split()}
    # Words of five letters, ids of five digits; and each thing as a whole.
    return sorted({each for each in found | {p for p in pieces if len(p) > 4} if len(each) > 3} - _NOT_SOMEBODYS)


#: What the synthetic objects and the folders of the archive share with everything else.
_NOT_SOMEBODYS = {"TESTER", "objects", "Series", "PACS", "SELFTEST"}


def forms(secret: str) -> Iterator[bytes]:
    """Each way in which a text may stand in a file: encodings, escapes, packed."""
    texts = {secret, secret.lower(), secret.upper(), unicodedata.normalize("NFD", secret), secret.replace("^", " ")}
    for text in texts:
        for codec in ("utf-8", "utf-16-le", "utf-16-be", *{each[2] for each in PATIENTS}):
            try:
                yield text.encode(codec)
            except UnicodeEncodeError:
                continue
        yield ascii(text)[1:-1].encode()
        yield json.dumps(text)[1:-1].encode()
        yield quote(text).encode()
        yield text.encode("utf-8").hex().encode()
        yield base64.b64encode(text.encode("utf-8")).rstrip(b"=")[:-1]
        yield text.encode("unicode_escape")


def every_byte(bundle: bytes) -> bytes:
    """All bytes of a bundle: as it is, decompressed, and each file of it."""
    unpacked = gzip.decompress(bundle)
    with tarfile.open(fileobj=io.BytesIO(unpacked)) as archive:
        for entry in archive.getmembers():
            assert entry.isfile()
    return bundle + b"\n" + unpacked


def read(bundle: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(bundle)) as archive:
        return {
            entry.name.removeprefix("pacs-support/"): archive.extractfile(entry).read()  # type: ignore[union-attr]
            for entry in archive.getmembers()
        }


def found_in(content: bytes, secrets: list[str]) -> list[str]:
    lowered = content.lower()
    return [secret for secret in secrets if any(len(f) > 3 and f.lower() in lowered for f in forms(secret))]


def journal_of(lines: list[str | bytes], folder: Path) -> dict[str, str]:
    """systemd's journal with these lines: programs of its names, which are found first."""
    records = [
        {
            "__REALTIME_TIMESTAMP": "1795349400000000", "PRIORITY": "4", "_SYSTEMD_UNIT": "pacs-receiver@1.service",
            "MESSAGE": list(line) if isinstance(line, bytes) else line,
        }
        for line in lines
    ]  # fmt: skip
    (folder / "records").write_text("".join(json.dumps(each) + "\n" for each in records))
    units = (
        "Id=pacs-worker.service\nActiveState=failed\nResult=exit-code\n\nId=zwoetterhagen.service\nActiveState=active\n"
    )
    (folder / "units").write_text(units)
    for name, file in (("journalctl", "records"), ("systemctl", "units")):
        (folder / name).write_text(f"#!/bin/sh\ncat {folder}/{file}\n")
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def bundle_of(dev: Dev, **environment: str) -> bytes:
    done = subprocess.run(
        [sys.executable, "-m", "pacs.cli.main", "--data", str(dev.data), "support-bundle"],
        capture_output=True, check=False, env={**os.environ, **dev.environment, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_there_is_no_patients_data_in_it(planted: tuple[Dev, list[str]], tmp_path: Path) -> None:
    dev, secrets = planted
    logged = [line for line in dev.log().splitlines() if line]
    typed: list[str | bytes] = [
        *logged,
        *(f"somebody wrote {secret} into a log" for secret in secrets),
        *(name.encode(codec, "replace") for _set, name, codec in PATIENTS),
        f"ERROR:  duplicate key value DETAIL:  Key (patient_id)=({secrets[0]}) STATEMENT: SELECT '{PATIENTS[0][1]}'",
    ]
    bundle = bundle_of(dev, **journal_of(typed, tmp_path))
    assert len(secrets) > 100
    assert found_in(every_byte(bundle), secrets) == []
    # ... and the search would have found them.
    for name in [name for _set, name, _codec in PATIENTS]:
        assert found_in(f"x{name.partition('^')[0]}x".encode(), secrets)
    assert found_in("\n".join(logged).encode(), secrets), "the services log of whom they heard"


def test_it_says_what_helps(planted: tuple[Dev, list[str]], tmp_path: Path) -> None:
    dev, _all = planted
    line = "repository usb1 takes the log; it has a gap until a new backup is made"
    found = read(bundle_of(dev, **journal_of([line, "Main process exited, code=killed, status=9/KILL"], tmp_path)))
    about = json.loads(found["about.json"])
    assert about["missing"] == {} and about["appliance_id"] and set(about["parts"]) == set(found) - {"about.json"}
    checks = {each["name"]: each for each in json.loads(found["checks.json"])}
    assert checks["database"] == {"name": "database", "severity": "ok", "message": "answers", "hint": ""}
    assert checks["conflicts"]["severity"] == "warning" and "`pacs conflict list`" in checks["conflicts"]["hint"]
    assert "objects have no good copy, of study [x:" in checks["copies"]["message"]
    database = json.loads(found["database.json"])
    assert database["totals"]["objects"] == 15 and database["server"]["size_bytes"] > 1_000_000
    assert {"object", "copy", "study"} <= {each["table_name"] for each in database["tables"]}
    assert json.loads(found["settings.json"])["receivers"] == 1
    assert json.loads(found["volumes.json"])[0]["name"] == "tier1"
    assert json.loads(found["runs.json"])["scrub"]["newest"] is not None
    assert json.loads(found["units.json"]) == [
        {"Id": "pacs-worker.service", "ActiveState": "failed", "Result": "exit-code"}
    ]
    journal = found["journal.txt"].decode()
    assert "takes the log; it has a gap until a new backup is made" in journal and "usb1" not in journal
    assert "pacs-receiver@1.service: Main process exited, code=killed, status=9/KILL\n" in journal
    assert journal.startswith("2026-11-22T")


def test_secrets_and_names_in_settings_stay_here(planted: tuple[Dev, list[str]]) -> None:
    dev, _all = planted
    found = bundle_of(dev, PACS_AE_TITLE="ZWETSCHGENPACS", PACS_DATABASE=f"host={dev.data}/run dbname=pacs user=pacs")
    settings = json.loads(read(found)["settings.json"])
    assert (settings["ae_title"], settings["database"], settings["tier1"]) == ("set", "set", None)
    assert b"ZWETSCHGEN" not in every_byte(found) and str(dev.data).encode() not in every_byte(found)


def test_a_sick_node_gives_one_too(new_instance: Callable[[], Path], tmp_path: Path) -> None:
    data = new_instance()
    (data / "config" / "pacs.toml").write_text('database = "host=/nowhere dbname=pacs password=Geheimzq"\n')
    (data / "config" / "repositories").mkdir()
    (data / "config" / "repositories" / "usb.toml").write_text("place = [Geheimzq\n")
    to = tmp_path / "bundle.tar.gz"
    done = Dev(data, journal_of([], tmp_path)).pacs("support-bundle", "--to", str(to))
    assert done.stdout == "" and stat.S_IMODE(to.stat().st_mode) & 0o007 == 0
    found = read(to.read_bytes())
    about = json.loads(found["about.json"])
    assert about["is_database_here"] is False and set(about["missing"]) == {"repositories.json"}
    check, *others = json.loads(found["checks.json"])
    assert check["severity"] == "critical" and "unknown" in {each["severity"] for each in others}
    assert b"Geheimzq" not in every_byte(to.read_bytes())
    assert {"versions.json", "mounts.json", "lineage.json", "settings.json"} <= set(found)
