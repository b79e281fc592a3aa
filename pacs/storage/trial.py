"""The mark of a trial copy: an archive that was restored beside the one that goes on.

    DATA/lineage/trial.json    of what, up to when, and since when

It is there before anything of the restored archive is. While it is there the repositories are only read, nothing is
backed up or shipped, and the lineage is one of its own: the archive that was copied hears nothing of it. A trial copy
never becomes the archive; a restore without --trial onto another empty appliance does.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pacs.errors import TrialCopy
from pacs.storage import durable

FILE = Path("lineage", "trial.json")


@dataclass(frozen=True)
class Trial:
    """What a trial copy is a copy of. Times are ISO 8601."""

    appliance_id: str
    repository: str
    restored_to: str
    since: str

    @property
    def words(self) -> str:
        """It in words for a person."""
        return f"this is a trial copy, made {self.since[:16]}, of the archive as it was {self.restored_to[:16]} UTC"


def trial_at(data: Path) -> Trial | None:
    """What the instance in `data` is a trial copy of; None if it is none. One that cannot be read is one."""
    try:
        return Trial(**json.loads((data / FILE).read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError):
        return Trial("unknown", "unknown", "unknown", "unknown")


def begin_trial(data: Path, trial: Trial) -> None:
    """Mark an instance as a trial copy, durably."""
    durable.make_folders((data / FILE).parent)
    durable.replace_file(data / FILE, (json.dumps(asdict(trial), indent=1) + "\n").encode())


def end_trial(data: Path) -> None:
    """The instance is none any more: what is restored onto it now is to be the archive."""
    if (data / FILE).exists():
        (data / FILE).unlink()
        durable.fsync_folder((data / FILE).parent)


def require_no_trial(data: Path) -> None:
    """Raise TrialCopy if the instance is one."""
    found = trial_at(data)
    if found is not None:
        raise TrialCopy(
            f"Not here: {found.words}. It writes to no repository. If it is to be the archive, restore onto another "
            "empty appliance without --trial (docs/operate/restore.md)."
        )
