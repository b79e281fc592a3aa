"""What disks say is written down for the checks: those that have SMART, whatever smartctl ends with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pacs.checks import smart as check
from pacs.checks.check import Ground
from pacs.machine import smart
from pacs.machine.commands import MachineError
from pacs.settings import Settings

_SMARTCTL = """#!/bin/sh
case "$*" in
*--scan-open*) echo '{"devices": [{"name": "/dev/sda", "type": "sat"}, {"name": "/dev/vda", "type": "scsi"}]}' ;;
*/dev/sda) echo '{"device": {"name": "/dev/sda"}, "smart_status": {"passed": false}}'; exit 8 ;;
*/dev/vda) echo '{"device": {"name": "/dev/vda"}, "smart_support": {"available": false}}'; exit 4 ;;
*) exit 1 ;;
esac
"""


def test_the_report_and_what_the_check_makes_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = tmp_path / "run" / "smart.json"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="package installed"):
        smart.write(report)
    (tmp_path / "smartctl").write_text(_SMARTCTL)
    (tmp_path / "smartctl").chmod(0o755)
    assert smart.write(report) == 1
    assert [each["device"]["name"] for each in json.loads(report.read_text())["disks"]] == ["/dev/sda"]
    monkeypatch.setattr(check, "REPORT", report)
    result = check.run(Ground(Settings(data=tmp_path)))
    assert result.severity == "critical" and "/dev/sda says that it will fail" in result.message
    (tmp_path / "smartctl").write_text("#!/bin/sh\necho nonsense\n")
    with pytest.raises(MachineError, match="JSON"):
        smart.write(report)
