"""Asks the service by its own command, with the service's rights: the database lets in nobody else."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from pacs.machine.commands import MachineError

#: The appliance's command, which drops to the service's rights by itself.
PACS = Path("/usr/local/bin/pacs")
_TIMEOUT_S = 60


def ask(*words: str, pacs: Path = PACS) -> Any:
    """What `pacs ... --json` prints. Raise MachineError with its own words if it fails."""
    try:
        answer = subprocess.run(
            [pacs, *words, "--json"], capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
        )
        if answer.returncode == 0:
            return json.loads(answer.stdout)
        why = " ".join(answer.stderr.split())[-300:] or f"it ended with {answer.returncode}"
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        why = str(error)
    raise MachineError(f"The service does not answer: {why}")
