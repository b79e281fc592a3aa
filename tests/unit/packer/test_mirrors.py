"""Which archive is taken, from what apt says."""

from __future__ import annotations

from pathlib import Path

import pytest

from packer.base.disk import packages
from packer.errors import BuildError
from packer.mirrors import Mirrors, host_mirrors, packages_digest, parse_index_targets

BOOKWORM = """\
http://mirror.example/debian/|bookworm-backports|Debian Backports|Debian Backports|main
http://mirror.example/debian/|bookworm|Debian|Debian|main
http://mirror.example/debian/|bookworm-updates|Debian|Debian|main
http://mirror.example/debian-security/|bookworm-security|Debian|Debian-Security|main
https://other.example/apt|stable|Other|Other|main
"""


def test_a_debian_host() -> None:
    found = parse_index_targets(BOOKWORM, debian=True)
    assert found == Mirrors("http://mirror.example/debian", "http://mirror.example/debian-security")


def test_a_debian_host_before_its_first_update() -> None:
    listing = "http://mirror.example/debian/|trixie|$(ORIGIN)|$(LABEL)|main\n"
    assert parse_index_targets(listing, debian=True) == Mirrors("http://mirror.example/debian", None)
    assert parse_index_targets(listing, debian=False) is None


@pytest.mark.parametrize(
    "listing",
    [
        "",
        "http://mirror.example/ubuntu/|noble|Ubuntu|Ubuntu|main\n",
        "file:/srv/mirror/|bookworm|Debian|Debian|main\n",
        "http://mirror.example/debian/|bookworm|Debian|Debian|contrib\n",
    ],
)
def test_what_the_guest_could_not_use_is_left_alone(listing: str) -> None:
    assert parse_index_targets(listing, debian=False) is None


def test_sources() -> None:
    assert Mirrors("http://a/debian", "http://a/sec").sources("trixie") == [
        "deb http://a/debian trixie main",
        "deb http://a/debian trixie-updates main",
        "deb http://a/sec trixie-security main",
    ]
    assert Mirrors("http://a/debian", None).releases("trixie")[0] == "http://a/debian/dists/trixie/InRelease"


def test_the_environment_overrules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACS_DEBIAN_MIRROR", "http://here/debian")
    monkeypatch.setenv("PACS_DEBIAN_SECURITY_MIRROR", "http://here/security")
    assert host_mirrors() == Mirrors("http://here/debian", "http://here/security")


@pytest.mark.skipif(not Path("/usr/lib/apt/apt-helper").exists(), reason="a system without apt")
def test_a_broken_mirror_is_named() -> None:
    with pytest.raises(BuildError, match=r"http://127\.0\.0\.1:9/debian.*PACS_DEBIAN_MIRROR"):
        packages_digest(Mirrors("http://127.0.0.1:9/debian", None), "trixie")


def test_a_list_of_packages() -> None:
    assert packages("# all\nlinux  # the kernel\n\nsudo less\n") == ["linux", "sudo", "less"]


def test_no_mirror_is_written_down_here() -> None:
    """The mirror is the host's own, or the tool's default."""
    folder = Path(__file__).parents[3] / "packer"
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert len(files) > 20
    assert [path.name for path in files if "debian.org" in path.read_text("utf-8")] == []
