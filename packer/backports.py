"""A sound QEMU on Debian 12: from Debian's own backports, without a change to the host's configuration of apt.

The sources and the package lists for it lie in the build folder and are named on apt's command line only. The address
is the one that the host's apt has for Debian.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from packer.errors import BuildError
from packer.mirrors import Mirrors, os_release
from packer.progress import run_logged, say

PACKAGES = ("qemu-system-x86", "qemu-utils")
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_RELEASE = "bookworm"


def available(mirrors: Mirrors | None) -> str | None:
    """Why QEMU can't be had from backports here, or None when it can be tried."""
    if os_release().get("VERSION_CODENAME") != _RELEASE or mirrors is None:
        return "only Debian 12 has it in its backports"
    if os.geteuid() != 0 and not shutil.which("sudo"):
        return "neither root nor sudo is at hand"
    return None


def sources(mirrors: Mirrors) -> str:
    """apt sources: backports, and the release itself for what the packages depend on."""
    lines = [*mirrors.sources(_RELEASE), f"deb {mirrors.archive} {_RELEASE}-backports main"]
    return "".join(f"{line.replace('deb ', f'deb [signed-by={_KEYRING}] ', 1)}\n" for line in lines)


def apt_options(folder: Path) -> list[str]:
    """Options that make apt use `folder` in the place of the host's sources, lists and caches."""
    return [
        f"Dir::Etc::sourcelist={folder / 'sources.list'}",
        "Dir::Etc::sourceparts=-",
        f"Dir::State::lists={folder / 'lists'}",
        f"Dir::Cache::pkgcache={folder / 'pkgcache.bin'}",
        f"Dir::Cache::srcpkgcache={folder / 'srcpkgcache.bin'}",
        "APT::Sandbox::User=root",
        "DPkg::Lock::Timeout=600",
        "Acquire::Retries=3",
    ]


def install(mirrors: Mirrors, scratch: Path, log: Path) -> None:
    """Install QEMU from backports; BuildError when that fails."""
    folder = (scratch / "backports").resolve()
    (folder / "lists").mkdir(parents=True, exist_ok=True)
    (folder / "sources.list").write_text(sources(mirrors))
    say(f"      QEMU from Debian's backports ({', '.join(PACKAGES)}): 7.2 is unsound on several threads.")
    say("      The host's configuration of apt stays as it is; to go back, install the release's own version.")
    command = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y", "--no-install-recommends"]
    if os.geteuid() != 0:
        command.insert(0, "sudo")
    for option in apt_options(folder):
        command += ["-o", option]
    remedy = "The build goes on with what there is."
    try:
        run_logged([*command, "update"], log, remedy=remedy)
        run_logged([*command, "-t", f"{_RELEASE}-backports", "install", *PACKAGES], log, remedy=remedy)
    finally:
        if os.geteuid() == 0:
            shutil.rmtree(folder / "lists", ignore_errors=True)


def try_install(mirrors: Mirrors | None, scratch: Path, log: Path) -> bool:
    """Install QEMU from backports where that is possible; whether it was done."""
    reason = available(mirrors)
    if reason or mirrors is None:
        say(f"      No newer QEMU: {reason}.")
        return False
    try:
        install(mirrors, scratch, log)
    except BuildError as error:
        say(f"      No newer QEMU: {error.what.splitlines()[0]}")
        return False
    return True
