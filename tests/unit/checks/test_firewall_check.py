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
    now, before = clock.now().isoformat(), (clock.now() - timedelta(hours=1)).isoformat()
    told.write_text(json.dumps({"at": now, "problems": [], "problems_since": ""}))
    assert firewall.judge(told).severity == "ok"
    problem = {"at": now, "problems": ["The name ct cannot be looked up."], "problems_since": now}
    told.write_text(json.dumps(problem))
    assert firewall.judge(told).severity == "ok", "it may pass"
    told.write_text(json.dumps(problem | {"problems_since": before}))
    assert firewall.judge(told).message == "The name ct cannot be looked up."
    told.write_text(json.dumps({"at": before, "problems": [], "problems_since": ""}))
    assert "not looked after" in firewall.judge(told).message
    told.write_text("{")
    assert firewall.judge(told).severity == "warning"
