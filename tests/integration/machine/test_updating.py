"""Security updates by Debian's own apt and dpkg, into a root of the test's, from an archive on loopback."""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pacs.machine import commands
from pacs.machine.commands import MachineError
from pacs.machine.firewall_policy import Destination
from pacs.machine.update_sources import called, mirror, mirror_conf, mirror_list
from pacs.machine.updating import Updating, stale_programs
from pacs.storage import update_state

#: A Sunday, in and out of the window.
OPEN, CLOSED = datetime(2099, 11, 22, 2, 30, tzinfo=UTC), datetime(2099, 11, 22, 12, tzinfo=UTC)
WINDOW = "sun 02:00-04:00"

pytestmark = pytest.mark.skipif(not shutil.which("apt-get"), reason="apt is Debian's")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_arguments: Any) -> None:
        pass


@dataclass
class Rig:
    """A root with packages, an archive with newer ones, and what programs beside apt were called."""

    folder: Path
    url: str
    ran: list[tuple[str, ...]] = field(default_factory=list)
    answers: dict[str, str] = field(default_factory=lambda: {"pacs": "[]"})

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def state(self) -> Path:
        return self.folder / "state.json"

    def updating(self, window: str = WINDOW, **options: Any) -> Updating:
        root = f"--root={self.root}"
        apt = ("-o", f"Dir={self.root}", "-o", f"Dir::State::status={self.root}/var/lib/dpkg/status",
               "-o", f"Dpkg::Options::={root}", "-o", "APT::Sandbox::User=root", "-o", "APT::Architecture=amd64",
               "-o", "Dpkg::Options::=--force-not-root", "-o", "Acquire::Retries=0",
               "-o", "Dir::Etc::trustedparts=/etc/apt/trusted.gpg.d/",
               # Its caches are known by their seconds: too slow for an archive that changes with each test.
               "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=")  # fmt: skip
        (self.folder / "proc").mkdir(exist_ok=True)
        return Updating(window, self.state, apt, (root, "--force-not-root"), self.folder / "proc", self._run, **options)

    def _run(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        if words[0] == "env":
            return commands.run(*words, **options)
        self.ran.append(words)
        said = next((text for name, text in self.answers.items() if name in " ".join(words)), "")
        return subprocess.CompletedProcess(words, 0, said, "")

    def installed(self) -> dict[str, str]:
        said = commands.output(
            "dpkg-query", f"--admindir={self.root}/var/lib/dpkg", "-W", "-f", "${Package} ${Version}\n"
        )
        return dict(line.split() for line in said.splitlines())

    def offer(self, packages: dict[str, str], label: str = "Debian-Security") -> None:
        """Have the archive offer these packages."""
        archive = self.folder / "archive"
        shutil.rmtree(archive, ignore_errors=True)
        archive.mkdir()
        stanzas = []
        for name, version in packages.items():
            file = _deb(self.folder, archive, name, version)
            content = file.read_bytes()
            control = commands.output("dpkg-deb", "--field", str(file))
            digest = hashlib.sha256(content).hexdigest()
            stanzas.append(f"{control}\nFilename: ./{file.name}\nSize: {len(content)}\nSHA256: {digest}\n\n")
        index = "".join(stanzas).encode()
        (archive / "Packages").write_bytes(index)
        (archive / "Packages.gz").write_bytes(gzip.compress(index))
        sums = "".join(
            f" {hashlib.sha256((archive / each).read_bytes()).hexdigest()} {(archive / each).stat().st_size} {each}\n"
            for each in ("Packages", "Packages.gz")
        )
        head = f"Origin: Debian\nLabel: {label}\nSuite: stable-security\nCodename: test\n"
        (archive / "Release").write_text(f"{head}Date: Sat, 21 Nov 2026 12:00:00 UTC\nSHA256:\n{sums}")


def _deb(folder: Path, into: Path, name: str, version: str) -> Path:
    tree = folder / "package"
    shutil.rmtree(tree, ignore_errors=True)
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "usr/share" / name).mkdir(parents=True)
    (tree / "usr/share" / name / "version").write_text(version)
    (tree / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: x <x@y>\nDescription: test\n"
    )
    file = into / f"{name}_{version}_amd64.deb"
    commands.run("dpkg-deb", "--root-owner-group", "--build", str(tree), str(file))
    return file


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    (tmp_path / "archive").mkdir()
    handler = functools.partial(_Quiet, directory=str(tmp_path / "archive"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        made = Rig(tmp_path, f"http://127.0.0.1:{server.server_port}")
        for name in (
            *("var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/apt/lists/partial", "var/log/apt"),
            *("var/cache/apt/archives/partial", "etc/apt/apt.conf.d", "etc/apt/preferences.d"),
        ):
            (made.root / name).mkdir(parents=True)
        (made.root / "var/lib/dpkg/status").touch()
        (made.root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] {made.url} ./\n")
        for name in ("openssl", "linux-image-amd64"):
            deb = _deb(tmp_path, tmp_path, name, "1")
            commands.run("dpkg", f"--root={made.root}", "--force-not-root", "--force-depends", "--install", str(deb))
        made.offer({"openssl": "2", "linux-image-amd64": "2"})
        yield made
        server.shutdown()
        thread.join()


def test_out_of_the_window_it_looks_and_in_it_it_installs_but_not_the_kernel(rig: Rig) -> None:
    known = rig.updating().turn(CLOSED)
    assert {name: (each.version, each.with_upgrade) for name, each in known.pending.items()} == {
        "openssl": ("2", False), "linux-image-amd64": ("2", True),
    }  # fmt: skip
    assert rig.installed() == {"openssl": "1", "linux-image-amd64": "1"}
    since = known.pending["linux-image-amd64"].since
    known = rig.updating().turn(OPEN)
    assert rig.installed() == {"openssl": "2", "linux-image-amd64": "1"}
    assert list(known.pending) == ["linux-image-amd64"]
    assert known.pending["linux-image-amd64"].since == since
    assert update_state.read(rig.state) == known
    assert not any("reboot" in words for words in rig.ran)


def test_what_is_not_of_the_security_archive_stays(rig: Rig) -> None:
    rig.offer({"openssl": "2"}, label="Debian")
    assert rig.updating().turn(OPEN).pending == {}
    assert rig.installed()["openssl"] == "1"


def test_off_calls_nobody(rig: Rig) -> None:
    shutil.rmtree(rig.folder / "archive")
    assert rig.updating("off").turn(OPEN).looked_at == ""
    assert rig.ran == []


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"pacs-backup": "activating", "pacs check": "[]"}, "pacs-backup.service is at work"),
        (
            {"pacs check": json.dumps([{"name": "volumes", "severity": "critical"}])},
            "`pacs check` is critical: volumes",
        ),
        ({"pacs check": "no word"}, "`pacs check` is critical: check"),
    ],
)
def test_it_waits_for_what_should_not_be_cut_off(rig: Rig, answer: dict[str, str], why: str) -> None:
    rig.answers = answer
    known = rig.updating().turn(OPEN)
    assert known.waits_for == why
    assert rig.installed()["openssl"] == "1"
    rig.answers = {"pacs": "[]"}
    assert rig.updating(upgrade_is_open=lambda: True).turn(OPEN).waits_for == "an upgrade is not decided yet"
    assert rig.updating().turn(OPEN).waits_for == ""
    assert rig.installed()["openssl"] == "2"


def test_it_restarts_in_the_window_alone_and_when_nobody_is_signed_in(rig: Rig) -> None:
    updating = rig.updating()
    process = rig.folder / "proc/77"
    process.mkdir()
    (process / "comm").write_text("nginx\n")
    (process / "maps").write_text("7f00-7f01 r-xp 0 fe:01 9   /usr/lib/libssl.so.3 (deleted)\n")
    assert stale_programs(rig.folder / "proc") == {"nginx"}
    assert updating.turn(OPEN, at_once=True).restart_since
    reboot = ("systemctl", "--no-block", "reboot")
    assert rig.ran.count(reboot) == 1
    assert updating.turn(CLOSED).restart_since
    assert rig.ran.count(reboot) == 1
    rig.answers["loginctl"] = "3 2000 admin"
    assert updating.turn(OPEN).waits_for == "an administrator is signed in"
    assert rig.ran.count(reboot) == 1
    (process / "maps").write_text("7f00-7f01 r-xp 0 fe:01 9   /usr/lib/libssl.so.3\n7f r 0 0 9 /memfd:x (deleted)\n")
    assert updating.turn(OPEN).restart_since == ""


def test_an_archive_that_does_not_answer_is_told_of_with_since_when(rig: Rig) -> None:
    shutil.rmtree(rig.folder / "archive")
    for _ in range(2):
        with pytest.raises(MachineError, match="apt-get"):
            rig.updating().turn(CLOSED)
    known = update_state.read(rig.state)
    assert known is not None
    assert known.problem
    first = known.problem_since
    (rig.folder / "archive").mkdir()
    rig.offer({"openssl": "2"})
    assert rig.updating().turn(CLOSED).problem == ""
    assert first


def test_a_mirror_stands_alone_and_is_called(rig: Rig) -> None:
    url = mirror("http://Mirror.hospital.example/debian-security/")
    assert mirror_list(url, "trixie") == "deb http://mirror.hospital.example/debian-security trixie-security main\n"
    assert "sourceparts" in mirror_conf()
    assert called(rig.root, url).calls == (Destination("security updates", "mirror.hospital.example", 80),)
    port = int(rig.url.rpartition(":")[2])
    assert called(rig.root, "").calls == (Destination("security updates", "127.0.0.1", port),)
