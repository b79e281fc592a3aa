"""The firewall's check."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

from pacs import clock
from pacs.checks import firewall


def test_where_there_is_none_nothing_is_wrong(tmp_path: Path) -> None:
    assert firewall.judge(tmp_path / "none").severity == "ok"


def test_it_warns_of_what_could_not_be_asked_and_of_an_old_application(tmp_path: Path) -> None:
    told = tmp_path / "firewall.json"
    told.write_text(json.dumps({"at": clock.now().isoformat(), "problems": []}))
    assert firewall.judge(told).severity == "ok"
    told.write_text(json.dumps({"at": clock.now().isoformat(), "problems": ["The name ct cannot be looked up."]}))
    assert firewall.judge(told).message == "The name ct cannot be looked up."
    told.write_text(json.dumps({"at": (clock.now() - timedelta(hours=1)).isoformat(), "problems": []}))
    assert "not looked after" in firewall.judge(told).message
    told.write_text("{")
    assert firewall.judge(told).severity == "warning"
