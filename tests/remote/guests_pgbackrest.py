"""Debian 13's pgBackRest with its libraries, in a folder that comes first on the path: it knows SFTP since 2.46."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.remote.root import far_root


def put_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put it into a folder, and that on the path; return the program."""
    root = Path(far_root())
    loader = root / "usr/lib64/ld-linux-x86-64.so.2"
    program, libraries = root / "usr/bin/pgbackrest", root / "usr/lib/x86_64-linux-gnu"
    listed = subprocess.run(
        [loader, "--library-path", libraries, "--list", program], capture_output=True, text=True, check=True
    ).stdout
    (folder / "lib").mkdir(parents=True, mode=0o755)
    for word in listed.split():
        if word.startswith(str(libraries)):
            shutil.copy(word, folder / "lib")
    for each in (loader, program):
        shutil.copy(each, folder / "lib")
    wrapper = folder / "pgbackrest"
    wrapper.write_text(
        f'#!/bin/sh\nexec {folder}/lib/{loader.name} --library-path {folder}/lib --argv0 "$0" '
        f'{folder}/lib/pgbackrest "$@"\n'
    )
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return wrapper
