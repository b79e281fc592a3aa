"""`pacs dev`: refused where it must be, and started again after whatever was killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests import peer
from tests.fix_instance import Dev
from tests.peer import RawObject
from tests.synthetic import SyntheticObject, ct_study

CT, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"


def start_refused(data: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a `pacs dev` that must not start."""
    command = [sys.executable, "-m", "pacs.cli.main", "dev", "--data", str(data), "--http-port", "0", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def wait_for(condition: Callable[[], object], timeout_s: float = 30) -> None:
    ends = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < ends, "it did not come about"
        time.sleep(0.1)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def services_of(dev: Dev) -> dict[str, int]:
    """The pids of the supervisor's children by name."""
    assert dev.process is not None
    found = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            words = (status.parent / "cmdline").read_bytes().split(b"\0")
        except (OSError, IndexError):
            continue
        if parent == dev.process.pid and b"pacs.cli.main" in words:
            found[words[words.index(b"pacs.cli.main") + 1].decode()] = int(status.parent.name)
    return found


def children_of(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def postmaster_of(dev: Dev) -> int:
    return int((dev.data / "postgresql" / "main" / "postmaster.pid").read_text().split()[0])


def store(dev: Dev, study: list[SyntheticObject]) -> None:
    assert set(peer.store(dev.dicom_port, map(RawObject.of, study))) == {0x0000}


def holds(dev: Dev, *studies: list[SyntheticObject]) -> bool:
    """Whether each study comes back, byte for byte."""
    for study in studies:
        taken = peer.get(dev.dicom_port, [study[0].study_instance_uid], [(CT, EXPLICIT)])
        if {uid: raw.dataset for uid, raw in taken.items()} != {m.sop_instance_uid: m.dataset for m in study}:
            return False
    return True


def test_refused_starts_say_why_and_leave_the_running_one_alone(dev: Dev, short_folder: Path, tmp_path: Path) -> None:
    second = start_refused(dev.data, "--dicom-port", "0")
    assert second.returncode == 2
    assert "Another `pacs dev` runs on" in second.stderr

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = start_refused(short_folder / "taken", "--dicom-port", str(port))
    assert refused.returncode == 2
    assert f"Port {port} cannot be had" in refused.stderr
    assert "Take another" in refused.stderr
    assert not (short_folder / "taken" / "postgresql").exists()

    newer = short_folder / "newer"
    newer.mkdir()
    (newer / "volume.json").write_text('{"format": 99}')
    refused = start_refused(newer, "--dicom-port", "0")
    assert refused.returncode == 6
    assert not (newer / "postgresql").exists()

    a_file = tmp_path / "file"
    a_file.write_text("")
    for refused in (
        second,
        start_refused(a_file, "--dicom-port", "0"),
        start_refused(a_file / "x", "--dicom-port", "0"),
    ):
        assert refused.returncode == 2
        assert "Traceback" not in refused.stderr

    long = short_folder / ("long" * 30)
    refused = start_refused(long, "--dicom-port", "0")
    assert refused.returncode == 3
    assert "too long" in refused.stderr

    assert httpx.get(f"http://127.0.0.1:{dev.http_port}/healthz").status_code == 200


def test_a_folder_that_is_closed_to_postgresqls_user_is_named(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root drops to another user")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    refused = start_refused(closed / "data", "--dicom-port", "0")
    assert refused.returncode == 3
    assert "is closed" in refused.stderr
    assert "chmod o+x" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_service_that_dies_is_started_again(dev: Dev) -> None:
    study = ct_study(201, 2, 8, 8)
    store(dev, study)
    for name in ("receiver", "web", "worker"):
        before = services_of(dev)
        os.kill(before[name], signal.SIGKILL)
        wait_for(lambda name=name, before=before: services_of(dev).get(name, before[name]) != before[name])  # type: ignore[misc]
    wait_for(lambda: is_answering(dev))
    assert holds(dev, study)


def is_answering(dev: Dev) -> bool:
    try:
        healthy = httpx.get(f"http://127.0.0.1:{dev.http_port}/healthz", timeout=15).status_code == 200
    except httpx.HTTPError:
        return False
    with peer.associated(dev.dicom_port, [(peer.VERIFICATION, EXPLICIT)]) as assoc:
        return healthy and assoc.is_established


def test_it_starts_again_after_each_kind_of_kill(new_dev: Callable[..., Dev]) -> None:
    running = new_dev().start()
    first = ct_study(211, 2, 8, 8)
    store(running, first)

    # only the supervisor: its children die with it, the cluster stays and is adopted
    children, postmaster = services_of(running), postmaster_of(running)
    assert set(children) == {"receiver", "web", "worker"}
    assert running.process is not None
    running.process.kill()
    running.process.wait(30)
    wait_for(lambda: not any(map(is_alive, children.values())))
    assert is_alive(postmaster)
    running.start()
    assert postmaster_of(running) == postmaster
    assert holds(running, first)
    second = ct_study(212, 2, 8, 8)
    store(running, second)

    # only the postmaster: it is started again, and what was acknowledged is there, also in between
    os.kill(postmaster, signal.SIGKILL)
    wait_for(lambda: not is_alive(postmaster))
    third = ct_study(213, 1, 8, 8)
    (status,) = peer.store(running.dicom_port, [RawObject.of(third[0])])
    assert status in (0x0000, 0xA700, None), "the last of the old server, the new one, or none yet"
    wait_for(lambda: httpx.get(f"http://127.0.0.1:{running.http_port}/healthz", timeout=30).status_code == 200)
    assert holds(running, first, second, *([third] if status == 0x0000 else []))
    running.stop()
    running.start()
    assert holds(running, first, second, *([third] if status == 0x0000 else []))
    last = running.pids()
    running.stop()
    assert running.process.returncode == 0
    wait_for(lambda: not any(map(is_alive, last)))


def test_health_follows_the_database(dev: Dev) -> None:
    base = f"http://127.0.0.1:{dev.http_port}"
    study = [RawObject.of(made) for made in ct_study(301, 2, 8, 8)]
    assert set(peer.store(dev.dicom_port, study)) == {0x0000}
    assert httpx.get(f"{base}/healthz", timeout=30).status_code == 200
    page = httpx.get(base)
    assert page.status_code == 200
    assert "Müller" not in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert "server" not in page.headers, "which software and version it is helps an attacker only"

    # All of PostgreSQL is held: it neither answers nor refuses, as with a disk that hangs.
    held = [postmaster_of(dev), *children_of(postmaster_of(dev))]
    for pid in held:
        os.kill(pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        down = httpx.get(f"{base}/healthz", timeout=60)
        assert down.status_code == 503
        assert down.json()["status"] == "critical"
        assert time.monotonic() - started < 20
    finally:
        for pid in held:
            os.kill(pid, signal.SIGCONT)
    wait_for(lambda: httpx.get(f"{base}/healthz", timeout=60).status_code == 200)
    assert peer.store(dev.dicom_port, study) == [0x0000, 0x0000]


def test_commands_on_a_running_instance(dev: Dev) -> None:
    """As an operator types them, in a process of their own: the exit code is the shell's."""
    assert dev.pacs("device", "list").returncode == 0
    assert (
        dev.pacs("device", "add", "x", "--ae-title", "A\\B", "--host", "h", "--port", "1", check=False).returncode == 2
    )
    assert dev.pacs("device", "remove", "nobody", check=False).returncode == 9
    checked = dev.pacs("check", check=False)
    assert checked.returncode == 1
    assert "WARNING" in checked.stdout
    listed = dev.pacs("study", "list")
    assert "Traceback" not in listed.stderr
