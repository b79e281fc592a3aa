"""The wheelhouse: all Python packages that go into the guest, made on the host.

`python -m packer.wheels FOLDER` makes FOLDER/wheelhouse alone, for the role pacs under development.

The service's dependencies come as wheels for the guest's Python, each checked against the hash in
requirements/service.txt; they are kept by the digest of that file. The service itself is built anew every time.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from packer.errors import BuildError
from packer.progress import run_logged

GUEST_PYTHON = "3.13"
# Debian 13 has glibc 2.41; pip does not know by itself that a newer glibc runs what was built for an older one.
_NEWEST_GLIBC_MINOR = 41
_OLDEST_GLIBC_MINOR = 5
LOCK_NAME = "service.txt"


def wheelhouse(repository: Path, cache: Path, scratch: Path, log: Path, epoch_s: int) -> Path:
    """A folder with every wheel of the lock, the lock, and the service's own wheel."""
    lock = repository / "requirements" / LOCK_NAME
    kept = _locked_wheels(lock, cache, log)
    folder = scratch / "wheelhouse"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(kept, folder)
    shutil.copyfile(lock, folder / LOCK_NAME)
    _service_wheel(repository, scratch, folder, log, epoch_s)
    return folder


def lock_digest(lock: Path) -> str:
    """What the kept wheels are known by: the lock and the Python they are for."""
    return hashlib.sha256(GUEST_PYTHON.encode() + lock.read_bytes()).hexdigest()


def platforms() -> list[str]:
    """Every tag of a Linux wheel that the guest runs."""
    minors = range(_NEWEST_GLIBC_MINOR, _OLDEST_GLIBC_MINOR - 1, -1)
    return [*(f"manylinux_2_{minor}_x86_64" for minor in minors), "manylinux2014_x86_64", "manylinux2010_x86_64"]


def _locked_wheels(lock: Path, cache: Path, log: Path) -> Path:
    kept = cache / f"wheels-{lock_digest(lock)[:24]}"
    if kept.is_dir():
        return kept
    staging = kept.with_name(f".{kept.name}.{os.getpid()}")
    shutil.rmtree(staging, ignore_errors=True)
    command: list[str | Path] = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--require-hashes", "--only-binary=:all:", "--implementation=cp"]
    command += [
        f"--python-version={GUEST_PYTHON}",
        f"--abi=cp{GUEST_PYTHON.replace('.', '')}",
        "--abi=abi3",
        "--abi=none",
    ]
    command += [f"--platform={name}" for name in platforms()]
    run_logged([*command, "--requirement", lock, "--dest", staging], log, remedy=_REMEDY)
    staging.rename(kept)
    return kept


def _service_wheel(repository: Path, scratch: Path, folder: Path, log: Path, epoch_s: int) -> None:
    """Build the wheel of `pacs` from a copy: build backends leave folders of their own beside what they build."""
    copy = scratch / "service"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(repository / "pacs", copy / "pacs", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        if (repository / name).is_file():
            shutil.copyfile(repository / name, copy / name)
    command: list[str | Path] = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    run_logged(
        [*command, "--no-deps", "--no-build-isolation", "--wheel-dir", folder, copy],
        log,
        remedy=_REMEDY,
        env={"SOURCE_DATE_EPOCH": str(epoch_s)},
    )
    shutil.rmtree(copy)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the wheelhouse of this clone; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m packer.wheels", description=__doc__)
    parser.add_argument("folder", type=Path, help="where to; what is fetched is kept there too")
    folder: Path = parser.parse_args(arguments).folder
    folder.mkdir(parents=True, exist_ok=True)
    repository = Path(__file__).resolve().parent.parent
    try:
        print(wheelhouse(repository, folder, folder, folder / "wheelhouse.log", int(time.time())))
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


_REMEDY = (
    "Read the log. A hash that does not match: run `make lock` on purpose, or find out who changed the package. "
    "No network: pip takes its index from its own configuration."
)

if __name__ == "__main__":
    sys.exit(main())
