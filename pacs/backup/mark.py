"""The mark of a restore that was begun: while it is in the data directory nothing else starts there."""

from __future__ import annotations

from pathlib import Path

#: Relative to the data directory, in a folder that is the service's.
MARK = Path("config", "restore-unfinished")
