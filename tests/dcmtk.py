"""DCMTK's tools. pynetdicom brings some of the same names, which an active venv puts before them on the PATH."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path


def dcmtk(name: str) -> str:
    """The path of one of DCMTK's tools. Raise FileNotFoundError if it is not installed."""
    ours = Path(sys.prefix, "bin").resolve()
    folders = [folder for folder in os.get_exec_path() if Path(folder).resolve() != ours]
    found = shutil.which(name, path=os.pathsep.join(folders))
    if found is None:
        raise FileNotFoundError(f"{name} is not here: apt-get install dcmtk")
    return found
