"""The archives and receivers that are measured: this project's, Orthanc with PostgreSQL, and DCMTK's bare storescp.

Orthanc and its PostgreSQL are Debian 13's packages in a root of their own, made by mmdebstrap from the host's mirror
and kept in the cache by the archive's content. Everything listens on 127.0.0.1 only and runs in a mount namespace
that goes with its process.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from packer.mirrors import GUEST_RELEASE, host_mirrors, packages_digest
from tests.dcmtk import dcmtk

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pacs-appliance"
_PACKAGES = ("orthanc", "orthanc-postgresql", "postgresql-17", "dcmtk")
#: Where a move is sent to, as every peer knows it.
DESTINATION_AE = "BENCHDEST"
_START_TIMEOUT_S = 60


class Peer(Protocol):
    """Something that takes associations on a port of 127.0.0.1."""

    ae_title: str
    port: int

    @property
    def name(self) -> str:
        """What the report calls it."""

    def start(self, folder: Path, destination_port: int) -> None:
        """Start with an empty archive in folder, and wait until it takes associations."""

    def stop(self) -> None:
        """End it."""


def free_port() -> int:
    """A TCP port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes], what: str) -> None:
    ends = time.monotonic() + _START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < ends:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"{what} did not start; its log is beside its data")


def _end(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None and process.poll() is None:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass
class Storescp:
    """DCMTK's storescp: C++, no database, no fsync. The floor of what receiving costs on this machine."""

    fork: bool = False  # a process an association; without, one association after the other
    ae_title: str = "STORESCP"
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        return "storescp --fork" if self.fork else "storescp"

    def start(self, folder: Path, destination_port: int) -> None:
        received = folder / "received"
        received.mkdir(parents=True)
        self.port = free_port()
        self.process = subprocess.Popen(
            [dcmtk("storescp"), *(["--fork"] if self.fork else []), "--max-pdu", "131072"]
            + ["-aet", self.ae_title, "-od", str(received), str(self.port)],
            env={**os.environ, "TCP_NODELAY": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        _wait_for(self.port, self.process, "storescp")

    def stop(self) -> None:
        _end(self.process)


@dataclass
class Pacs:
    """This project, as `pacs dev` runs it: every byte fsynced, every row committed."""

    name: str = "pacs"
    ae_title: str = "PACS"
    port: int = 0
    data: Path = Path()
    process: subprocess.Popen[bytes] | None = None

    def start(self, folder: Path, destination_port: int) -> None:
        self.data, self.port = folder / "data", free_port()
        with (folder.parent / f"{folder.name}.pacs.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pacs.cli.main", "dev", "--data", str(self.data)]
                + ["--dicom-port", str(self.port), "--http-port", "0"],
                stdout=subprocess.PIPE, stderr=log, start_new_session=True,
            )  # fmt: skip
        assert self.process.stdout is not None
        if not any(line.startswith(b"ready ") for line in iter(self.process.stdout.readline, b"")):
            raise RuntimeError("pacs dev did not start; its log is beside its data")
        self._pacs("device", "add", "destination", "--ae-title", DESTINATION_AE, "--host", "127.0.0.1",
                   "--port", str(destination_port))  # fmt: skip

    def _pacs(self, *words: str) -> None:
        words = ("-m", "pacs.cli.main", "--data", str(self.data), *words)
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        _end(self.process)


@dataclass
class Orthanc:
    """Orthanc with its index in PostgreSQL, both with their default durability."""

    name: str = "orthanc"
    ae_title: str = "ORTHANC"
    port: int = 0
    http_port: int = 0
    root: Path = Path()
    database: subprocess.Popen[bytes] | None = None
    process: subprocess.Popen[bytes] | None = None

    def start(self, folder: Path, destination_port: int) -> None:
        self.root = self.root if self.root != Path() else debian_root()
        self.port, self.http_port = free_port(), free_port()
        database_port = free_port()
        shutil.chown(folder, *_postgres_of(self.root))
        binaries = "/usr/lib/postgresql/17/bin"
        self._inside(folder, f"{binaries}/initdb", "-D", "/bench/pg", "-U", "orthanc", "-A", "trust").wait()
        self.database = self._inside(
            folder, f"{binaries}/postgres", "-D", "/bench/pg", "-k", "/bench", "-p", str(database_port),
            "-c", "listen_addresses=127.0.0.1",
        )  # fmt: skip
        _wait_for(database_port, self.database, "Orthanc's PostgreSQL")
        (folder / "orthanc.json").write_text(json.dumps(self._configuration(database_port, destination_port)))
        self.process = self._inside(folder, "/usr/sbin/Orthanc", "/bench/orthanc.json")
        _wait_for(self.port, self.process, "Orthanc")

    def _configuration(self, database_port: int, destination_port: int) -> dict[str, object]:
        return {
            "StorageDirectory": "/bench/storage",
            "IndexDirectory": "/bench/storage",
            "DicomAet": self.ae_title,
            "DicomPort": self.port,
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowGet": True,
            "DicomAlwaysAllowMove": True,
            "DicomModalities": {"destination": [DESTINATION_AE, "127.0.0.1", destination_port]},
            "Plugins": ["/usr/share/orthanc/plugins/"],
            "PostgreSQL": {
                "EnableIndex": True, "EnableStorage": False, "Host": "127.0.0.1", "Port": database_port,
                "Database": "postgres", "Username": "orthanc", "Password": "",
            },
        }  # fmt: skip

    def _inside(self, folder: Path, *words: str) -> subprocess.Popen[bytes]:
        """Run a program of the root as its user postgres, with folder at /bench."""
        script = (
            'root=$1 folder=$2; shift 2; mount --rbind /dev "$root/dev"; mount --rbind /proc "$root/proc";'
            ' mkdir -p "$root/bench"; mount --bind "$folder" "$root/bench";'
            ' exec chroot --userspec=postgres:postgres "$root"'
            ' env -i PATH=/usr/bin:/bin LANG=C.UTF-8 TCP_NODELAY=1 "$@"'
        )
        with (folder.parent / f"{folder.name}.orthanc.log").open("ab") as log:
            return subprocess.Popen(
                ["unshare", "-m", "--propagation", "private", "bash", "-ec", script, "bash"]
                + [str(self.root), str(folder), *words],
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def stop(self) -> None:
        _end(self.process)
        if self.database is not None:
            self.database.send_signal(2)  # SIGINT: a fast shutdown, where SIGTERM waits for every client
            self.database.wait(60)


def _postgres_of(root: Path) -> tuple[int, int]:
    for line in (root / "etc" / "passwd").read_text().splitlines():
        words = line.split(":")
        if words[0] == "postgres":
            return int(words[2]), int(words[3])
    raise RuntimeError(f"{root} has no user postgres")


def debian_root() -> Path:
    """The folder of a Debian 13 root with the peers' packages; made if the cache has none."""
    mirrors = host_mirrors()
    key = packages_digest(mirrors, GUEST_RELEASE)[:16] if mirrors else time.strftime("week-%G-%V", time.gmtime())
    root = CACHE / f"peers-{key}"
    if root.is_dir():
        return root
    print(f"bench: a Debian 13 root with {', '.join(_PACKAGES)} (half a minute)", flush=True)
    making = root.with_name(f"{root.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    # No service may start while it is installed: policy-rc.d says no, as Debian's own builds do.
    forbid = 'printf "#!/bin/sh\\nexit 101\\n" > "$1/usr/sbin/policy-rc.d"; chmod +x "$1/usr/sbin/policy-rc.d"'
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=apt", f"--include={','.join(_PACKAGES)}", f"--essential-hook={forbid}"]
        + ["--aptopt=APT::Install-Recommends false", "--dpkgopt=force-unsafe-io", GUEST_RELEASE, str(making)]
        + (mirrors.sources(GUEST_RELEASE) if mirrors else []),
        check=True,
    )
    making.rename(root)
    return root


def versions(root: Path) -> dict[str, str]:
    """Package → version of what the peers' root holds."""
    listing = subprocess.run(
        ["dpkg-query", f"--admindir={root / 'var/lib/dpkg'}", "-W", "-f", "${Package} ${Version}\n"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    found = dict(line.split(" ", 1) for line in listing.splitlines())
    return {name: found[name] for name in _PACKAGES}
