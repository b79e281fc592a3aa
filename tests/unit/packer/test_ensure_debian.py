"""requirements/ensure-debian, with a PATH of our own where the system must look different."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "requirements" / "ensure-debian"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A PATH with nothing but what every system has."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("bash", "env", "grep"):
        found = shutil.which(tool)
        assert found
        (folder / tool).symlink_to(found)
    return folder


def _command(folder: Path, name: str, script: str) -> None:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def _run(lists: Path | str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": str(path)} if path else None
    return subprocess.run(
        ["bash", SCRIPT, lists], capture_output=True, text=True, check=False, env=environment, timeout=60
    )


def _list(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "list.txt"
    file.write_text(text)
    return file


def test_silent_and_quick_when_all_is_there(tmp_path: Path) -> None:
    if not shutil.which("dpkg-query"):
        pytest.skip("not a Debian")
    started = time.monotonic()
    answer = _run(_list(tmp_path, "# all\ndpkg   # itself\n\nbase-files\n"))
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
    assert time.monotonic() - started < 5


def test_another_system_gets_a_list(tmp_path: Path, path: Path) -> None:
    answer = _run(_list(tmp_path, "postgresql # the index\nqemu-utils\n"), path)
    assert answer.returncode == 1
    assert "not Debian or Ubuntu" in answer.stderr
    assert "  postgresql\n  qemu-utils\n" in answer.stderr


def test_a_command_from_elsewhere_is_enough(tmp_path: Path, path: Path) -> None:
    _command(path, "packer", "true")
    answer = _run(_list(tmp_path, "packer (packer 1.6.6)\n"), path)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")


def test_without_root_and_sudo_the_command_to_run_is_said(tmp_path: Path, path: Path) -> None:
    _command(path, "dpkg-query", "echo 'installed here'; exit 1")
    _command(path, "apt-get", "exit 99")
    _command(path, "id", "echo 1000")
    answer = _run(_list(tmp_path, "here\nmtools\nfdisk\n"), path)
    assert answer.returncode == 1
    assert "  apt-get update && apt-get install --no-install-recommends mtools fdisk\n" in answer.stderr


def test_what_this_release_does_not_have_is_named_with_its_version(tmp_path: Path, path: Path) -> None:
    """Debian 13 has no Packer."""
    _command(path, "dpkg-query", "exit 1")
    _command(path, "apt-get", f'echo "$@" >>{tmp_path / "calls"}')
    _command(path, "apt-cache", "echo 'packer:\n  Candidate: (none)'")
    _command(path, "id", "echo 0")
    answer = _run(_list(tmp_path, "packer (packer 1.6.6)\n"), path)
    assert answer.returncode == 1
    assert "install packer 1.6.6 or newer" in answer.stderr
    assert "install -y" not in (tmp_path / "calls").read_text()


def test_what_is_missing_is_said_and_installed_without_recommends(tmp_path: Path, path: Path) -> None:
    _command(path, "dpkg-query", "echo 'installed here'; exit 1")
    _command(path, "apt-get", f'echo "$@" >>{tmp_path / "calls"}')
    _command(path, "apt-cache", "echo 'Candidate: 1.0'")
    _command(path, "id", "echo 0")
    answer = _run(_list(tmp_path, "here\nmtools\n"), path)
    assert answer.returncode == 0
    assert "installing: mtools" in answer.stdout
    assert "install -y --no-install-recommends mtools" in (tmp_path / "calls").read_text()


@pytest.mark.parametrize("text", ["a b\n", "packer (packer)\n"])
def test_a_line_it_can_not_read_is_refused(tmp_path: Path, text: str) -> None:
    answer = _run(_list(tmp_path, text))
    assert answer.returncode == 1
    assert "can't read" in answer.stderr


def test_no_such_list() -> None:
    answer = _run("/nowhere/list.txt")
    assert answer.returncode == 1
    assert "no such list" in answer.stderr


@pytest.mark.parametrize("name", ["debian-appliance.txt", "debian-test.txt", "debian-test-long.txt"])
def test_our_own_lists_can_be_read(name: str, path: Path) -> None:
    answer = _run(SCRIPT.parent / name, path)
    assert "can't read" not in answer.stderr
    assert "These Debian packages" in answer.stderr
