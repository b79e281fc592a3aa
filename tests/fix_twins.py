"""A folder for two nodes."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sftp_server import SSHD


@pytest.fixture
def twin_folder(short_folder: Path) -> Iterator[Path]:
    if not SSHD.exists():
        pytest.skip("Debian's openssh-server is not installed: requirements/debian-test.txt")
    made = short_folder / f"twins{uuid.uuid4().hex[:6]}"
    made.mkdir()
    yield made
    shutil.rmtree(made, ignore_errors=True)
