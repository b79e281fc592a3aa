"""OpenStack Swift with its S3 API, as Debian 13 has it: a real object store on loopback, for the long tests.

Its four servers run in a root of their own (tests/remote/root.py), in a mount namespace that goes with them. One copy
of everything, one folder for all: what is wanted is another's idea of S3, not Swift's durability.
"""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

from tests.bench.peers import free_port

ACCESS_KEY, SECRET_KEY = "test:tester", "testing"
OTHER_ACCESS_KEY, OTHER_SECRET_KEY = "other:tester", "testing2"
_START_TIMEOUT_S = 60
_SERVERS = ("account", "container", "object", "proxy")

_STORAGE_SERVER = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
devices = /far/nodes
mount_check = false
workers = 0
user = root
log_level = WARNING
fallocate_reserve = 0
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""

_PROXY_SERVER = f"""\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {{port}}
workers = 0
user = root
log_level = WARNING
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck cache listing_formats bulk s3api tempauth copy slo dlo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
node_timeout = 30
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = {SECRET_KEY} .admin
user_other_tester = {OTHER_SECRET_KEY} .admin
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{{cache_port}}
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
minimum_segment_size = 1
[filter:dlo]
use = egg:swift#dlo
"""


class Swift:
    """A running object store; `endpoint` is where its S3 API is."""

    def __init__(self, root: Path, folder: Path) -> None:
        """Configure one that keeps everything below folder."""
        self.root, self.folder = root, folder
        self.ports = {kind: free_port() for kind in (*_SERVERS, "cache")}
        self._running: list[subprocess.Popen[bytes]] = []

    @property
    def endpoint(self) -> str:
        """The URL of its S3 API."""
        return f"http://127.0.0.1:{self.ports['proxy']}"

    def start(self) -> Swift:
        """Make its rings, start its servers and wait until it answers."""
        self._configure()
        for kind in _SERVERS[:3]:
            builder = f"/etc/swift/{kind}.builder"
            node = f"r1z1-127.0.0.1:{self.ports[kind]}/d1"
            for words in (["create", "4", "1", "0"], ["add", node, "1"], ["rebalance"]):
                assert self._run("swift-ring-builder", builder, *words).wait() == 0, self.log()
        self._running = [self._run(f"swift-{kind}-server", f"/etc/swift/{kind}-server.conf", "-v") for kind in _SERVERS]
        self._running.append(self._run("memcached", "-u", "root", "-l", f"127.0.0.1:{self.ports['cache']}"))
        for kind, process in zip((*_SERVERS, "cache"), self._running, strict=True):
            self._wait_for(kind, process)
        return self

    def stop(self) -> None:
        """End its servers."""
        for process in self._running:
            process.terminate()
        for process in self._running:
            process.wait(30)

    def log(self) -> str:
        """What its servers have said."""
        return (self.folder / "swift.log").read_text(errors="replace")

    def _configure(self) -> None:
        etc = self.folder / "etc"
        etc.mkdir(parents=True)
        (self.folder / "nodes/d1").mkdir(parents=True)
        (etc / "swift.conf").write_text("[swift-hash]\nswift_hash_path_suffix = tests\n")
        for kind in _SERVERS[:3]:
            (etc / f"{kind}-server.conf").write_text(_STORAGE_SERVER.format(kind=kind, port=self.ports[kind]))
        proxy = _PROXY_SERVER.format(port=self.ports["proxy"], cache_port=self.ports["cache"])
        (etc / "proxy-server.conf").write_text(proxy)

    def _run(self, *words: str) -> subprocess.Popen[bytes]:
        script = (
            'root=$1 folder=$2; shift 2; mount --rbind /dev "$root/dev"; mount --rbind /proc "$root/proc";'
            ' mount --bind "$folder" "$root/far"; mount --bind "$folder/etc" "$root/etc/swift";'
            ' mount -t tmpfs none "$root/run"; mkdir -p "$root/run/swift";'
            ' exec chroot "$root" env -i PATH=/usr/bin:/bin LANG=C.UTF-8 "$@"'
        )
        with (self.folder / "swift.log").open("ab") as log:
            return subprocess.Popen(
                ["unshare", "-m", "--propagation", "private", "bash", "-ec", script, "bash"]
                + [str(self.root), str(self.folder), *words],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def _wait_for(self, kind: str, process: subprocess.Popen[bytes]) -> None:
        ends = time.monotonic() + _START_TIMEOUT_S
        while process.poll() is None and time.monotonic() < ends:
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex(("127.0.0.1", self.ports[kind])) == 0:
                    return
            time.sleep(0.1)
        raise AssertionError(f"swift-{kind}-server did not start: {self.log()[-2000:]}")
