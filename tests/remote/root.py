"""A Debian 13 root with what tests need of it: kernel NFS, Samba, Swift, User Mode Linux, its pgBackRest.

Made by mmdebstrap from the host's mirror (under a minute) and kept in the cache by the archive's content. Programs run
in it by chroot, in a mount namespace of their own; no service is started by installing it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time

import pytest

from packer.mirrors import GUEST_RELEASE, host_mirrors, packages_digest
from tests.bench.peers import CACHE

_PACKAGES = (
    "python3", "mount", "kmod", "iproute2", "e2fsprogs", "nftables", "user-mode-linux",
    "cryptsetup-bin", "systemd-cryptsetup", "libtss2-esys-3.0.2-0t64", "libtss2-rc0t64", "libtss2-tcti-swtpm0t64",
    "swtpm",
    "nfs-common", "nfs-kernel-server", "samba", "cifs-utils",
    "pgbackrest",
    "memcached", "swift-proxy", "swift-account", "swift-container", "swift-object",
)  # fmt: skip

#: No service may start while it is installed: policy-rc.d says no, as Debian's own builds do.
_NO_SERVICES = 'printf "#!/bin/sh\\nexit 101\\n" > "$1/usr/sbin/policy-rc.d"; chmod +x "$1/usr/sbin/policy-rc.d"'
#: User Mode Linux keeps its modules apart; /far is where a test's folder comes.
_MODULES_AND_FOLDER = (
    'mkdir -p "$1/usr/lib/modules" "$1/far" && for one in "$1"/usr/lib/uml/modules/*;'
    ' do ln -s "../uml/modules/${one##*/}" "$1/usr/lib/modules/"; done'
)


def far_root() -> str:
    """The root's folder, made if the cache has none; skips where that cannot be. Nothing is written in it."""
    if os.geteuid() != 0:
        pytest.skip("real servers run in a chroot: needs root")
    if shutil.which("mmdebstrap") is None:
        pytest.skip("mmdebstrap is not installed: requirements/ensure-debian requirements/debian-test-long.txt")
    mirrors = host_mirrors()
    key = packages_digest(mirrors, GUEST_RELEASE)[:16] if mirrors else time.strftime("week-%G-%V", time.gmtime())
    made_of = hashlib.sha256(repr((_PACKAGES, _MODULES_AND_FOLDER)).encode()).hexdigest()[:8]
    root = CACHE / f"far-{key}-{made_of}"
    if not root.is_dir():
        making = root.with_name(f"{root.name}.making")
        shutil.rmtree(making, ignore_errors=True)
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=apt", f"--include={','.join(_PACKAGES)}"]
            + [f"--essential-hook={_NO_SERVICES}", f"--customize-hook={_MODULES_AND_FOLDER}"]
            + ["--aptopt=APT::Install-Recommends false", "--dpkgopt=force-unsafe-io", GUEST_RELEASE, str(making)]
            + (mirrors.sources(GUEST_RELEASE) if mirrors else []),
            check=True,
        )  # fmt: skip
        making.rename(root)
    return str(root)
