"""Which Debian archive this build takes its packages from: the host's own, found out by asking the host's apt.

No address stands here. Where the host's apt has no Debian archive (another distribution), mmdebstrap uses its own
default. PACS_DEBIAN_MIRROR and PACS_DEBIAN_SECURITY_MIRROR overrule both.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from packer.errors import BuildError

GUEST_RELEASE = "trixie"
_TARGET_FORMAT = "$(REPO_URI)|$(RELEASE)|$(ORIGIN)|$(LABEL)|$(COMPONENT)"
_APT_HELPER = "/usr/lib/apt/apt-helper"
_TIMEOUT_S = 20


@dataclass(frozen=True)
class Mirrors:
    """Addresses of the Debian archive and of its security archive."""

    archive: str
    security: str | None

    def sources(self, release: str) -> list[str]:
        """One-line apt sources of a stable release with its updates."""
        lines = [f"deb {self.archive} {release} main", f"deb {self.archive} {release}-updates main"]
        if self.security:
            lines.append(f"deb {self.security} {release}-security main")
        return lines

    def releases(self, release: str) -> list[str]:
        """Addresses of the signed InRelease files behind `sources`."""
        fields = [line.split() for line in self.sources(release)]
        return [f"{uri.rstrip('/')}/dists/{suite}/InRelease" for _, uri, suite, _ in fields]


def host_mirrors() -> Mirrors | None:
    """The mirrors to use, or None when mmdebstrap's own default is to be used."""
    archive = os.environ.get("PACS_DEBIAN_MIRROR")
    security = os.environ.get("PACS_DEBIAN_SECURITY_MIRROR")
    if not archive and shutil.which("apt-get"):
        listing = subprocess.run(
            ["apt-get", "indextargets", "--format", _TARGET_FORMAT, "Created-By: Packages"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        found = parse_index_targets(listing, host_is_debian())
        if found:
            archive, security = found.archive, security or found.security
    return Mirrors(archive, security) if archive else None


def parse_index_targets(listing: str, debian: bool) -> Mirrors | None:
    """Mirrors out of `apt-get indextargets`: the archive of a plain release, and the one of `-security`.

    apt knows ORIGIN only after the first `apt-get update`; before it, a host that is Debian is believed.
    """
    archive = security = None
    for line in listing.splitlines():
        uri, release, origin, _label, component = line.split("|")
        known = origin == "Debian" or (debian and origin.startswith("$("))
        if not known or component != "main" or not uri.startswith(("http://", "https://")):
            continue
        if release.endswith("-security"):
            security = security or uri
        elif "-" not in release:
            archive = archive or uri
    return Mirrors(archive.rstrip("/"), security.rstrip("/") if security else None) if archive else None


def host_is_debian() -> bool:
    """Whether this host is Debian itself."""
    return os_release().get("ID") == "debian"


def os_release() -> dict[str, str]:
    """The fields of /etc/os-release, empty where there is none."""
    try:
        with open("/etc/os-release", encoding="utf-8") as stream:
            pairs = (line.rstrip("\n").split("=", 1) for line in stream if "=" in line)
            return {key: value.strip("\"'") for key, value in pairs}
    except FileNotFoundError:
        return {}


def packages_digest(mirrors: Mirrors, release: str) -> str:
    """SHA-256 over what the archive's suites hold for us now. Also the proof that the mirror can be reached.

    InRelease itself is signed anew every few hours; the digests of the package lists in it change only when packages
    do. It is a cache key and nothing more: mmdebstrap checks the signatures.
    """
    digest = hashlib.sha256()
    for address in mirrors.releases(release):
        lines = re.findall(r"^ ([0-9a-f]{64}) +\d+ main/binary-amd64/Packages$", _fetch(address), re.MULTILINE)
        if len(lines) != 1:
            raise BuildError(f"{address} is not the release file of a Debian archive.", _REMEDY)
        digest.update(f"{address.rsplit('/', 2)[1]} {lines[0]}\n".encode())
    return digest.hexdigest()


_REMEDY = (
    "Look at the network and at the mirror in /etc/apt, or name another one in PACS_DEBIAN_MIRROR and "
    "PACS_DEBIAN_SECURITY_MIRROR, then try again."
)


def _fetch(address: str) -> str:
    """Text at `address`, fetched the way the host's apt does it: with its proxy and its certificates."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "InRelease")
        options = [
            "-o",
            f"Acquire::http::Timeout={_TIMEOUT_S}",
            "-o",
            "APT::Sandbox::User=root",
            "-o",
            "Acquire::Retries=1",
        ]
        answer = subprocess.run(
            [_APT_HELPER, *options, "download-file", address, str(target)], capture_output=True, text=True, check=False
        )
        if answer.returncode != 0 or not target.is_file():
            said = (answer.stderr.strip() or answer.stdout.strip()).splitlines()[-2:]
            raise BuildError(f"The Debian mirror can't be reached: {address}: {' '.join(said)}.", _REMEDY)
        return target.read_text("utf-8", "replace")
