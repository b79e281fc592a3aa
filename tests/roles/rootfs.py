"""The root file system that the roles are tried on: Debian 13 as on the base disk, without its kernel and boot loader.

Made once and kept below ~/.cache/pacs-appliance, named by what went into it. It holds the archive's package lists and
every package that the roles install, so a converge needs no network: the container has none.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from packer.base.disk import packages
from packer.mirrors import GUEST_RELEASE, host_mirrors

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = Path.home() / ".cache/pacs-appliance"
_NOT_IN_A_CONTAINER = re.compile(r"linux-image|initramfs|grub|shim|dosfstools")


def base() -> Path:
    """The root file system's folder, made if it isn't there yet (about two minutes). Don't write to it."""
    installed = [
        name
        for name in packages((REPOSITORY / "packer/base/packages.txt").read_text())
        if not _NOT_IN_A_CONTAINER.match(name)
    ]
    later = role_packages()
    key = hashlib.sha256(repr((installed, later, GUEST_RELEASE)).encode()).hexdigest()[:16]
    root = CACHE / f"roles-{key}"
    if not root.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        _bootstrap(root, installed, later)
    return root


def role_packages() -> list[str]:
    """Every Debian package that a role installs: literal names, and lists that stand in the role's defaults."""
    names: set[str] = set()
    for role in sorted((REPOSITORY / "roles").iterdir()):
        defaults = _yaml(role / "defaults/main.yml") or {}
        for file in sorted((role / "tasks").glob("*.yml")):
            for task in _yaml(file) or []:
                wanted = task.get("ansible.builtin.apt", {}).get("name", [])
                if isinstance(wanted, str) and (variable := re.fullmatch(r"{{ *(\w+) *}}", wanted)):
                    wanted = defaults[variable[1]]
                names.update([wanted] if isinstance(wanted, str) else wanted)
    return sorted(names)


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8")) if path.exists() else None


def _bootstrap(root: Path, installed: list[str], later: list[str]) -> None:
    unfinished = root.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    mirrors = host_mirrors()
    download = f'chroot "$1" apt-get install --yes --download-only --no-install-recommends {" ".join(later)}'
    subprocess.run(
        [
            "mmdebstrap",
            "--quiet",
            "--variant=apt",
            "--architectures=amd64",
            "--skip=cleanup/apt",
            f"--include={','.join(installed)}",
            '--aptopt=APT::Install-Recommends "false"',
            '--aptopt=Acquire::Languages "none"',
            f"--customize-hook={download}",
            GUEST_RELEASE,
            str(unfinished),
            *(mirrors.sources(GUEST_RELEASE) if mirrors else ()),
        ],
        check=True,
    )
    unfinished.rename(root)
