"""The check of security updates."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from pacs import clock
from pacs.checks.updates import judge
from pacs.storage import update_state
from pacs.storage.update_state import Pending, UpdateState


def ago(days: float) -> str:
    return (clock.now() - timedelta(days=days)).isoformat()


def test_what_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "updates/state.json"
    os.umask(0o027)  # as the command's

    def said(state: UpdateState) -> tuple[str, str]:
        update_state.write(state, path)
        assert path.stat().st_mode & 0o777 == 0o644 and path.parent.stat().st_mode & 0o777 == 0o755
        found = judge(path)
        return found.severity, found.message

    assert judge(path).severity == "ok"
    assert said(UpdateState())[1].startswith("off: they come with `pacs upgrade`")
    known = UpdateState("sun 02:00-04:00", ago(0.5))
    assert said(known) == ("ok", "none is pending (sun 02:00-04:00)")
    young, old = {"openssl": Pending("2", ago(6))}, {"openssl": Pending("2", ago(15))}
    assert said(replace(known, pending=young)) == ("ok", "1 wait for the window (sun 02:00-04:00)")
    late = said(replace(known, pending=old, waits_for="pacs-backup.service is at work"))
    assert late == ("warning", "1 wait for 15 days (openssl); pacs-backup.service is at work")
    kernel = {"linux-image-amd64": Pending("6", ago(20), with_upgrade=True)}
    assert said(replace(known, pending=kernel))[0] == "ok"
    kernel = {"linux-image-amd64": Pending("6", ago(46), with_upgrade=True)}
    assert "come with an upgrade alone" in said(replace(known, pending=kernel))[1]
    assert "no window came" in said(replace(known, restart_since=ago(15)))[1]
    assert said(replace(known, problem="no answer", problem_since=ago(1)))[0] == "ok", "it may pass"
    assert "no answer" in said(replace(known, problem="no answer", problem_since=ago(4)))[1]
    path.write_text("{")
    assert judge(path).severity == "warning"
