"""Is this node the archive, and did nothing go back in time?"""

from __future__ import annotations

from pacs.checks.check import Ground, Result
from pacs.storage.lineage import LineageFiles, Reverted
from pacs.storage.trial import trial_at

_PAGE = "docs/operate/going-back-in-time.md"


def run(subject: Ground) -> Result:
    """Look at the fence, and at what was noted of disks that were put back to an earlier moment."""
    files = LineageFiles(subject.settings.data)
    why = files.fenced()
    if why is not None:
        return Result(
            "lineage", "critical", f"this node takes no associations and changes nothing: {why}",
            f"Shut it down if the other one is right; if this one is, `pacs lineage claim` ({_PAGE}).",
        )  # fmt: skip
    notice = files.reverted()
    if notice is not None:
        return _of(notice)
    trial = trial_at(subject.settings.data)
    if trial is not None:
        return Result(
            "lineage", "warning", f"{trial.words}: what it takes in is backed up nowhere",
            "Shut it down when you have seen what you wanted to see (docs/operate/restore.md).",
        )  # fmt: skip
    state = files.state()
    if state is None:
        return Result("lineage", "ok", "not marked yet: the worker has not run")
    return Result("lineage", "ok", f"epoch {state.epoch}, nothing went back in time")


def _of(notice: Reverted) -> Result:
    said = f"a disk went back in time, noticed {notice.noticed_at[:16]}: {'; '.join(notice.findings)}"
    if not notice.reconciled_at:
        return Result(
            "lineage", "critical", f"{said}. What the volumes hold beyond the index is being looked for", _PAGE
        )
    result = notice.result
    done = (
        f"found again: {result.get('indexed', 0)} objects and {result.get('changes', 0)} changes, "
        f"{result.get('missing', 0) - result.get('moved', 0)} files are gone"
    )
    if notice.is_state and notice.timeline_before is None:
        return Result(
            "lineage", "critical", f"{said}. {done}. The database's log is on its old timeline yet",
            f"Restart this machine, so that it begins a new one ({_PAGE}).",
        )  # fmt: skip
    left = f". Not done: {' '.join(notice.problems)}" if notice.problems else ""
    return Result(
        "lineage", "warning", f"{said}. {done}{left}", f"When you have read {_PAGE}: `pacs lineage acknowledge`."
    )
