"""The checks of the machine, against files and programs that say what a machine's say. None needs the database."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pacs import clock
from pacs.checks import alerts, certificates, database, disks, memory, raid, smart, time, ups
from pacs.checks.check import Ground, Result
from pacs.index.server import ServerHealth
from pacs.settings import Settings
from tests.certificates import make_certificate

GIB = 1 << 20  # of /proc/meminfo's kB


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    data = tmp_path / "data"
    for name in ("config", "tier1", "tier2"):
        (data / name).mkdir(parents=True)
    return Ground(Settings(data=data))


def severity(result: Result) -> str:
    assert result.message and (result.hint or result.severity == "ok"), "what is not well says what to do"
    return result.severity


@pytest.mark.parametrize(
    ("available", "ended", "expected"), [(4, 0, "ok"), (4, 2, "warning"), (0.7, 0, "warning"), (0.3, 0, "critical")]
)
def test_memory(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, available: float, ended: int, expected: str
) -> None:
    (tmp_path / "meminfo").write_text(
        f"MemTotal: {8 * GIB} kB\nMemAvailable: {int(available * GIB)} kB\nHugePages: 0\n"
    )
    (tmp_path / "vmstat").write_text(f"pgfault 1\noom_kill {ended}\n")
    monkeypatch.setattr(memory, "PROC", tmp_path)
    result = memory.run(ground)
    assert severity(result) == expected
    assert ("ended for want" in result.message) == bool(ended)


def test_memory_of_this_machine(ground: Ground) -> None:
    assert memory.run(ground).figures[1].value > 1e6


def test_disks_of_this_machine(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    before = disks.run(ground)
    assert severity(before) in ("ok", "warning") and "system" in before.message
    state = os.statvfs(ground.settings.data)
    full = os.statvfs_result((*state[:3], 10, 10, *state[5:]))
    monkeypatch.setattr(disks.os, "statvfs", lambda _path: full)
    assert severity(disks.run(ground)) == "warning"
    no_names = os.statvfs_result((*state[:5], 1000, 1, 1, *state[8:]))
    monkeypatch.setattr(disks.os, "statvfs", lambda _path: no_names)
    assert severity(disks.run(ground)) == "critical"


def test_a_disk_that_turned_read_only(ground: Ground, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"
        f"2 1 8:2 / {ground.settings.data} rw,relatime shared:1 - ext4 /dev/sdb rw,errors=remount-ro\n"
    )
    monkeypatch.setattr("pacs.storage.mounts.MOUNTINFO", mountinfo)
    assert "read-only" not in disks.run(ground).message
    mountinfo.write_text(mountinfo.read_text().replace("/dev/sdb rw", "/dev/sdb ro"))
    result = disks.run(ground)
    assert severity(result) == "critical" and "state: the file system is read-only" in result.message


def test_a_sandbox_in_which_disks_cannot_be_written_to_is_no_fault_of_theirs(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As ProtectSystem=strict makes it for each service: the mount is read-only, the file system is not."""
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(
        "1 0 8:1 / / ro,relatime - ext4 /dev/sda1 rw\n"
        f"2 1 8:2 / {ground.settings.data} ro,relatime shared:1 - ext4 /dev/sdb rw,errors=remount-ro\n"
    )
    monkeypatch.setattr("pacs.storage.mounts.MOUNTINFO", mountinfo)
    assert "read-only" not in disks.run(ground).message


def _array(folder: Path, name: str, **files: object) -> None:
    (folder / name / "md").mkdir(parents=True, exist_ok=True)
    for key, value in {"array_state": "clean", "sync_action": "idle", "degraded": 0, **files}.items():
        (folder / name / "md" / key).write_text(f"{value}\n")


def test_raid_through_a_failure(ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pacs.storage.arrays.BLOCK", tmp_path)
    monkeypatch.setattr(raid, "REPORT", tmp_path / "raid.json")
    assert raid.run(ground) == Result("raid", "ok", "there is none")
    _array(tmp_path, "md0", level="raid6", raid_disks=6)
    assert severity(raid.run(ground)) == "ok"
    _array(tmp_path, "md0", degraded=1, array_state="active")
    assert severity(raid.run(ground)) == "critical" and "1 more may fail" in raid.run(ground).message
    _array(tmp_path, "md0", degraded=2)
    assert "the next one that fails loses data" in raid.run(ground).message
    _array(tmp_path, "md0", degraded=1, sync_action="recover", sync_completed="500 / 1000")
    assert severity(raid.run(ground)) == "warning" and "rebuilt to 50 %" in raid.run(ground).message
    _array(tmp_path, "md0", sync_action="check", sync_completed="none")
    assert severity(raid.run(ground)) == "ok"
    _array(tmp_path, "md0", mismatch_cnt=8)
    assert severity(raid.run(ground)) == "warning"
    _array(tmp_path, "md1", level="raid1", raid_disks=2, degraded=1)
    result = raid.run(ground)
    assert severity(result) == "critical" and "md1 (raid1, 2 disks): 1 missing; the next" in result.message
    _array(tmp_path, "md1", array_state="inactive")
    assert "does not run" in raid.run(ground).message


def test_smart(ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = tmp_path / "smart.json"
    monkeypatch.setattr(smart, "REPORT", report)
    assert severity(smart.run(ground)) == "ok"

    def said(*found: dict[str, object], at: datetime | None = None) -> str:
        report.write_text(json.dumps({"at": (at or clock.now()).isoformat(), "disks": found}))
        return severity(smart.run(ground))

    def ata(attribute: int, raw: int) -> dict[str, object]:
        table = {"table": [{"id": attribute, "raw": {"value": raw}}]}
        return {"device": {"name": "/dev/sda"}, "smart_status": {"passed": True}, "ata_smart_attributes": table}

    nvme = {"device": {"name": "/dev/nvme0"}, "nvme_smart_health_information_log": {"percentage_used": 3}}
    assert said() == "ok", "a virtual machine"
    assert said(ata(5, 0), ata(197, 0), nvme) == "ok"
    assert said(ata(9, 40000)) == "ok", "the hours that it has run"
    assert said(ata(197, 2)) == "warning"
    assert "/dev/sda: 2 sectors that cannot be read" in smart.run(ground).message
    assert said({**ata(5, 1), "smart_status": {"passed": False}}) == "critical"
    assert said({**nvme, "nvme_smart_health_information_log": {"critical_warning": 4}}) == "critical"
    assert said({**nvme, "nvme_smart_health_information_log": {"percentage_used": 95}}) == "warning"
    assert said({**nvme, "temperature": {"current": 71}}) == "warning"
    assert said(at=clock.now() - timedelta(days=1)) == "warning", "nobody asks them"
    report.write_text("{")
    assert severity(smart.run(ground)) == "warning"


def _program(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    (folder / "bin").mkdir(exist_ok=True)
    path = folder / "bin" / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:/usr/bin:/bin")


def test_time(ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime(2026, 11, 22, 12, tzinfo=UTC)
    monkeypatch.setattr(clock, "now", lambda: now)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert time.run(ground).message == "not watched: chrony is not installed on this machine"

    def said(offset_s: float, heard: datetime = now, leap: str = "Normal") -> Result:
        line = f"C0000201,192.0.2.1,3,{heard.timestamp()},{offset_s},0.0,0.0,-7.1,0.0,0.1,0.01,0.001,64.0,{leap}"
        _program(tmp_path, monkeypatch, "chronyc", f"echo '{line}'")
        return time.run(ground)

    assert severity(said(0.0002)) == "ok"
    assert severity(said(-0.7)) == "warning" and "ahead" in said(-0.7).message
    assert severity(said(31)) == "critical"
    assert severity(said(0, now - timedelta(days=2))) == "warning"
    assert severity(said(0, leap="Not synchronised")) == "warning"
    _program(tmp_path, monkeypatch, "chronyc", "echo '506 Cannot talk to daemon' >&2; exit 1")
    assert severity(time.run(ground)) == "warning" and "506" in time.run(ground).message


def test_a_ups(ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert severity(ups.run(ground)) == "ok"
    ground = Ground(Settings(data=ground.settings.data, ups=("ups@localhost",)))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert severity(ups.run(ground)) == "critical", "it is named, and cannot be asked"

    def said(status: str, charge: int = 100) -> Result:
        lines = f"battery.charge: {charge}\nbattery.charge.low: 20\nbattery.runtime: 900\nups.status: {status}"
        _program(tmp_path, monkeypatch, "upsc", f"cat <<'X'\n{lines}\nX")
        return ups.run(ground)

    assert severity(said("OL")) == severity(said("OL CHRG", 60)) == "ok"
    assert severity(said("OB DISCHRG", 80)) == "critical" and "no power" in said("OB", 80).message
    assert "the battery is low" in said("OB LB", 30).message and "the battery is low" in said("OB", 15).message
    assert severity(said("OL RB")) == severity(said("OL OVER")) == severity(said("")) == "warning"
    _program(tmp_path, monkeypatch, "upsc", "echo 'Error: Data stale' >&2; exit 1")
    assert "does not answer: Data stale" in ups.run(ground).message


def test_certificates(ground: Ground, tmp_path: Path) -> None:
    assert severity(certificates.run(ground)) == "ok"
    made = make_certificate(tmp_path, "own", "ec")
    folder = ground.settings.tls_folder
    folder.mkdir(parents=True)
    (folder / "certificate.pem").write_bytes(made.certificate.read_bytes())
    result = certificates.run(ground)
    assert severity(result) == "critical" and "DICOM (own) is good for 2 days more" in result.message
    known = certificates.Known("DICOM", "own", 400, True)
    assert severity(certificates.judged([known])) == "ok"
    assert severity(certificates.judged([known, certificates.Known("trusted", "ct1", -3, False)])) == "warning"
    assert severity(certificates.judged([certificates.Known("HTTPS", "own", 20, True)])) == "warning"
    (folder / "certificate.pem").write_text("no certificate")
    assert severity(certificates.run(ground)) == "critical"


def test_the_database_server_that_will_stop() -> None:
    well = ServerHealth(5, 100, 0, 200_000_000, 1 << 30)
    for health, expected in (
        (well, "ok"),
        (ServerHealth(95, 100, 0, 0, 0), "warning"),
        (ServerHealth(5, 100, 0, 1_200_000_000, 0), "warning"),
        (ServerHealth(5, 100, 0, 1_700_000_000, 0), "critical"),
        (ServerHealth(5, 100, 1, 0, 0), "critical"),
    ):
        assert severity(database.judged(health)) == expected


def test_alerts_that_do_not_go_out(ground: Ground) -> None:
    data, now = ground.settings.data, clock.now()
    assert "pacs mail set" in alerts.run(ground).message
    (data / "config" / "alerts.toml").touch()
    assert alerts.run(ground).message == "none was sent yet"
    (data / "alerts").mkdir()

    def said(failed: timedelta | None, looked: timedelta = timedelta(0)) -> str:
        way = {"failed_since": failed is not None and (now - failed).isoformat(), "error": "away"}
        state = {"looked_at": (now - looked).isoformat(), "ways": {"syslog": way}}
        (data / "alerts" / "state.json").write_text(json.dumps(state))
        return severity(alerts.run(ground))

    assert said(None) == said(timedelta(minutes=30)) == "ok"
    assert said(timedelta(hours=2)) == "warning" and "by syslog none go out since" in alerts.run(ground).message
    assert said(None, timedelta(hours=2)) == "warning", "nobody looks"
    (data / "alerts" / "state.json").write_text("{")
    assert severity(alerts.run(ground)) == "warning"
