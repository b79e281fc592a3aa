"""`pacs selftest` against a running node: what it sees, and that nothing of it is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from pydicom.dataset import Dataset

from tests.faults.process import receiver_pid, wait_for
from tests.fix_instance import Dev
from tests.peer import RawObject, associated, store
from tests.synthetic import ct_study

_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
_EXPLICIT = "1.2.840.10008.1.2.1"


@pytest.fixture(scope="module")
def strict(short_folder: Path) -> Iterator[Dev]:
    """A node that takes only devices it knows, with TLS, which demands certificates and users."""
    settings = {
        "PACS_ANY_DEVICE_FROM_LOOPBACK": "0", "PACS_TLS_CLIENT_CERTIFICATE": "required",
        "PACS_USER_IDENTITY": "required", "PACS_TIER_INTERVAL_S": "0.5", "PACS_ORPHAN_AGE_S": "0",
    }  # fmt: skip
    dev = Dev(short_folder / "strict", settings, words=("--dicom-tls-port", "0"))
    dev.data.mkdir()
    dev.start()
    certificate = dev.data / "identity" / "dicom-tls" / "certificate.pem"
    other = short_folder / "other"
    other.mkdir()
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "9"]
    subprocess.run(
        [*words, "-subj", "/CN=other", "-keyout", str(other / "key.pem"), "-out", str(other / "certificate.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    (certificate.with_name("trusted.pem")).write_text((other / "certificate.pem").read_text())
    yield dev
    dev.stop()


def rows_of(dev: Dev) -> dict[str, int]:
    """How many rows each table has, in all schemas, but for results of runs."""
    with psycopg.connect(f"host={dev.data / 'run'} dbname=pacs user=pacs") as connection:
        names = connection.execute(
            "SELECT schemaname || '.' || tablename FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema') AND tablename NOT IN ('run', 'refusal')"
        ).fetchall()
        counts = {}
        for (name,) in names:
            row = connection.execute(f"SELECT count(*) FROM {name}".encode()).fetchone()
            assert row is not None
            counts[name] = int(row[0])
    return counts


def files_of(dev: Dev) -> set[str]:
    """The files on the volumes, and the receipts and the journal; not the mark that is written over and over."""
    folders = [dev.data / name for name in ("tier1", "tier2", "receipts", "journal")]
    return {
        f"{path.relative_to(dev.data)} {path.stat().st_size}"
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and "lineage.json" not in path.name
    }


def test_a_strict_node_passes_and_nothing_is_left(strict: Dev) -> None:
    assert strict.dicom_tls_port
    before = (rows_of(strict), files_of(strict))
    done = strict.pacs("selftest", "--json", check=False)
    result = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr + strict.log()[-3000:]
    names = [step["name"] for step in result["steps"]]
    plain, tls = f"port {strict.dicom_port}", f"port {strict.dicom_tls_port} (TLS)"
    for name in ("C-ECHO", "C-STORE", "C-FIND", "C-GET"):
        assert f"{name}, {plain}" in names and f"{name}, {tls}" in names
    assert {"C-MOVE to itself", "storage commitment", "the archive's own index", "delete"} <= set(names)
    assert (rows_of(strict), files_of(strict)) == before
    checked = json.loads(strict.pacs("check", "--json", check=False).stdout)
    assert next(each for each in checked if each["name"] == "selftest")["severity"] == "ok"
    assert 'pacs_run_succeeded{kind="selftest"} 1' in strict.pacs("check", "--metrics").stdout
    # A table of refusals that was there before would be another's: a selftest that passes adds none.
    assert "PACS-SELFTEST" not in strict.pacs("refusal", "list").stdout


def test_nobody_calls_as_a_selftest_while_none_runs(strict: Dev) -> None:
    with associated(strict.dicom_port, [(_FIND, _EXPLICIT)], calling="PACS-SELFTEST") as assoc:
        assert assoc.is_rejected or not assoc.is_established
    strict.pacs("refusal", "list")


@pytest.fixture
def stopped_selftest(dev: Dev) -> Iterator[subprocess.Popen[str]]:
    """A selftest that is stopped in the middle, when its study is stored."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pacs.cli.main", "--data", str(dev.data), "selftest"],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if "C-STORE" in line:
            process.send_signal(signal.SIGSTOP)
            break
    yield process
    process.kill()
    process.wait()


def test_while_it_runs_nobody_sees_it_and_what_a_killed_one_left_is_removed(
    dev: Dev, stopped_selftest: subprocess.Popen[str]
) -> None:
    assert list((dev.data / "tier1" / "selftest").iterdir()), "its study is not stored"
    assert "SELFTEST" not in dev.pacs("study", "list", "--json").stdout
    query = Dataset()
    query.QueryRetrieveLevel, query.PatientID = "STUDY", "SELFTEST"
    query.StudyInstanceUID = ""
    with associated(dev.dicom_port, [(_FIND, _EXPLICIT)]) as assoc:
        answers = [answer for _status, answer in assoc.send_c_find(query, _FIND) if answer is not None]
    assert answers == []
    found = json.loads(dev.pacs("reconcile", "run", "--json").stdout)
    assert found["files"] == found["copies"] == rows_of(dev)["public.copy"] and found["indexed"] == 0
    assert json.loads(dev.pacs("conflict", "list", "--json").stdout) == []

    stopped_selftest.kill()
    stopped_selftest.wait()
    wait_for(lambda: dev.pacs("selftest", check=False).returncode == 0, "the next one does not pass", 30)
    assert not list((dev.data / "tier1" / "selftest").iterdir())
    assert not any(name.startswith("selftest.") for name in rows_of(dev))


def test_a_node_that_does_not_store_fails_and_says_where(new_dev: Callable[..., Dev]) -> None:
    dev = new_dev(PACS_STATE_RESERVE_BYTES=str(1 << 60)).start()
    failed = dev.pacs("selftest", check=False)
    assert failed.returncode == 13
    assert "FAILED  C-STORE" in failed.stdout and "0xA700" in failed.stdout
    assert "ok      delete" in failed.stdout
    checked = json.loads(dev.pacs("check", "--json", check=False).stdout)
    said = next(each for each in checked if each["name"] == "selftest")
    assert said["severity"] == "critical" and "C-STORE" in said["message"]
    dev.stop()
    assert dev.pacs("selftest", check=False).returncode == 4


def test_one_that_hangs_has_failed_and_says_where(new_dev: Callable[..., Dev]) -> None:
    dev = new_dev().start()
    receiver = receiver_pid(dev)
    os.kill(receiver, signal.SIGSTOP)
    try:
        failed = dev.pacs("selftest", "--limit", "5", check=False)
    finally:
        os.kill(receiver, signal.SIGCONT)
    assert failed.returncode == 13
    assert "FAILED  association" in failed.stdout and "hangs" in failed.stdout
    assert "selftest_steps.py" in failed.stderr, "where it hangs"
    assert "ok      delete" in failed.stdout


def test_it_does_not_touch_what_is_there(dev: Dev) -> None:
    objects = [RawObject.of(each) for each in ct_study(77, 2)]
    assert store(dev.dicom_port, objects) == [0, 0]
    wait_for(lambda: rows_of(dev)["public.receipt_mark"] == 1, "no receipts")
    before = dev.pacs("study", "list", "--json").stdout
    assert dev.pacs("selftest").returncode == 0
    assert dev.pacs("study", "list", "--json").stdout == before
