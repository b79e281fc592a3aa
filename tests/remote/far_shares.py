"""What is tried on real NFS and SMB shares. Runs in a kernel of its own (tests/remote/uml.py), with Debian's Python.

The kernel's NFS server and Samba export folders of an ext4 file system; the kernel's clients mount them. Prints a
line of JSON for each trial: its name, and what went wrong.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from pacs.errors import ForeignVolume, PacsError, VolumeError, VolumeFailed, VolumeFull, VolumeMissing
from pacs.machine.shares import checked, unit_of
from pacs.machine.storage import Places
from pacs.storage import share_pool
from pacs.storage.files import LocalVolume
from pacs.storage.kinds import Kind, ToPut
from pacs.storage.mounts import mount_of
from pacs.storage.names import object_path
from pacs.storage.opening import open_volume
from pacs.storage.share import ShareVolume
from pacs.storage.share_place import make_at
from pacs.storage.volume import create_identity

APPLIANCE_ID = str(uuid.UUID(int=1))
CONTENT = secrets.token_bytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).digest()
OPTIONS = {"timeout_s": 5}
FAR = Path("/tmp/far")  # the servers' file system
SERVICE_UID = 2100
SMB_OPTIONS = "username=root,password=secret,cache=none,hard"


def run(*words: str, given: str | None = None) -> None:
    done = subprocess.run(words, input=given, capture_output=True, text=True)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"


def require(what: object, why: object = "") -> None:
    if not what:
        raise AssertionError(why)


@contextlib.contextmanager
def raises(kind: type[BaseException], part: str = "") -> Iterator[None]:
    try:
        yield
    except kind as error:
        require(part in str(error), f"{error!r} does not say {part!r}")
    else:
        raise AssertionError(f"no {kind.__name__}")


# --- the servers ----------------------------------------------------------------------------------------------------


def make_file_system() -> None:
    with Path("/far/disk").open("wb") as disk:
        disk.truncate(512 << 20)
    run("mkfs.ext4", "-q", "/far/disk")
    FAR.mkdir()
    run("modprobe", "loop")
    run("mount", "-o", "loop", "/far/disk", str(FAR))
    for name in ("nfs", "smb", "other"):
        (FAR / name).mkdir()


def start_nfs() -> None:
    run("mount", "-t", "tmpfs", "state", "/var/lib/nfs")
    for name in ("sm", "nfsdcld"):
        (Path("/var/lib/nfs") / name).mkdir()
    for name in ("etab", "rmtab"):
        (Path("/var/lib/nfs") / name).touch()
    exports = Path("/tmp/exports")
    exports.write_text(f"{FAR} 127.0.0.1(rw,sync,fsid=0,no_root_squash,no_subtree_check,insecure)\n")
    run("mount", "--bind", str(exports), "/etc/exports")
    run("modprobe", "nfsd")
    run("mount", "-t", "nfsd", "nfsd", "/proc/fs/nfsd")
    # It remembers the clients: where there were none, or all are back, there is no period of grace to wait for.
    Path("/run/rpc_pipefs").mkdir()
    run("mount", "-t", "rpc_pipefs", "pipefs", "/run/rpc_pipefs")
    run("nfsdcld")
    run("exportfs", "-a")
    subprocess.run(["rpc.mountd", "-N", "3"], stderr=subprocess.DEVNULL, check=True)
    wake_nfs()


def wake_nfs() -> None:
    run("rpc.nfsd", "-N", "3", "-G", "10", "-L", "10", "4")


def hang_nfs() -> None:
    """The server is gone: a client that mounted hard waits for it for ever."""
    Path("/proc/fs/nfsd/threads").write_text("0")


def start_smb() -> None:
    folder = Path("/tmp/samba")
    folder.mkdir()
    (folder / "smb.conf").write_text(
        "[global]\nserver role = standalone server\ninterfaces = 127.0.0.1\nbind interfaces only = yes\n"
        + "".join(f"{name} = {folder}\n" for name in
                  ("private dir", "lock directory", "state directory", "cache directory", "pid directory"))
        + f"ncalrpc dir = {folder}/ncalrpc\nlog file = {folder}/log\nload printers = no\ndisable netbios = yes\n"
        f"smb ports = 445\n[pacs]\npath = {FAR}/smb\nread only = no\nstrict sync = yes\n"
        f"[other]\npath = {FAR}/other\nread only = no\n"
    )  # fmt: skip
    run("smbpasswd", "-c", f"{folder}/smb.conf", "-s", "-a", "root", given="secret\nsecret\n")
    run("smbd", "-l", str(folder), "-s", f"{folder}/smb.conf", "-D")
    run("modprobe", "cifs")


def smb_processes() -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "comm").read_text().startswith("smbd"):
                found.append(int(folder.name))
    return found


def hang_smb() -> None:
    for pid in smb_processes():
        os.kill(pid, signal.SIGSTOP)


def wake_smb() -> None:
    for pid in smb_processes():
        os.kill(pid, signal.SIGCONT)


HANG: dict[str, Callable[[], None]] = {"nfs": hang_nfs, "smb": hang_smb}
WAKE: dict[str, Callable[[], None]] = {"nfs": wake_nfs, "smb": wake_smb}


def mount(kind: str, folder: Path, options: str = "", name: str = "") -> None:
    folder.mkdir(exist_ok=True)
    ends = time.monotonic() + 30
    while True:  # smbd takes a moment to listen
        if kind == "nfs":
            words = ["-t", "nfs4", "-o", f"vers=4.2,{options or 'hard,sync'}", f"127.0.0.1:/{name or 'nfs'}"]
        else:
            words = ["-t", "cifs", "-o", f"{SMB_OPTIONS}{options}", f"//127.0.0.1/{name or 'pacs'}"]
        done = subprocess.run(["mount", *words, str(folder)], capture_output=True, text=True)
        if done.returncode == 0:
            return
        require(time.monotonic() < ends, done.stderr)
        time.sleep(0.2)


# --- the trials -------------------------------------------------------------------------------------------------------


class Trials:
    """The trials of one kind of share, in the order that they stand in."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.server = FAR / kind
        self.folder = Path(f"/tmp/{kind}")
        mount(kind, self.folder)
        make_at(kind, str(self.folder), OPTIONS, "tier3", APPLIANCE_ID)
        self.volume = self.opened()

    def opened(self) -> ShareVolume:
        opened = open_volume(self.kind, str(self.folder), "tier3", OPTIONS, Path())
        assert isinstance(opened, ShareVolume)
        return opened

    def put(self, content: bytes = CONTENT) -> str:
        path = object_path(1, datetime.now(UTC), "42", hashlib.sha256(content).digest())
        require(self.volume.put(path, [content], len(content)) == hashlib.sha256(content).digest())
        return path

    def files(self) -> list[str]:
        return sorted(each.path for each in self.volume.walk())

    def trial_a_file_comes_back_and_lies_on_the_server(self) -> None:
        path = self.put()
        require((self.server / path).read_bytes() == CONTENT)
        require(self.volume.digest_on_disk(path) == SHA256)
        require(b"".join(self.volume.read(path)) == CONTENT)
        require(self.volume.size_of(path) == len(CONTENT) and self.volume.has(path))
        require(self.files() == [path], self.files())
        self.volume.require_writable()
        require((self.volume.room().size_bytes or 0) > 400e6)
        self.volume.replace_small("journal/1.jsonl", b"one")
        self.volume.replace_small("journal/1.jsonl", b"two")
        require(self.volume.read_small("journal/1.jsonl") == b"two")
        target = self.volume.quarantine(path)
        require((self.server / target).read_bytes() == CONTENT and self.files() == [])

    def trial_what_may_receive_does(self) -> None:
        require(self.volume.promise.may_receive == (self.kind == "nfs"))
        for size_bytes in (1000, 9_000_000):
            content = secrets.token_bytes(size_bytes)
            incoming = self.volume.begin()
            for at in range(0, size_bytes, 100_000):
                incoming.write(content[at : at + 100_000])
            path = object_path(1, datetime.now(UTC), "44", incoming.sha256)
            self.volume.place(incoming.finish(), path)
            require((self.server / path).read_bytes() == content)
            self.volume.remove(path)
        folder = Path(f"/tmp/not-sync-{self.kind}")
        mount(self.kind, folder, "hard" if self.kind == "nfs" else "")
        require(not open_volume(self.kind, str(folder), "tier3", OPTIONS, Path()).promise.may_receive)
        run("umount", "-l", str(folder))

    def trial_many_are_put_at_once(self) -> None:
        contents = [secrets.token_bytes(1000) for _ in range(50)]
        paths = [object_path(1, datetime.now(UTC), "43", hashlib.sha256(each).digest()) for each in contents]
        files = [ToPut(path, [content], 1000) for path, content in zip(paths, contents, strict=True)]
        require(self.volume.put_many(files) == [hashlib.sha256(each).digest() for each in contents])
        for path, content in zip(paths, contents, strict=True):
            require(self.volume.digest_on_disk(path) == hashlib.sha256(content).digest())
            self.volume.remove(path)

    def trial_the_digest_is_of_what_the_server_has(self) -> None:
        """Bytes change on the server's disk behind everybody's back: this machine's memory must not hide it."""
        path = self.put()
        require(b"".join(self.volume.read(path)) == CONTENT)
        changed = self.changed_on_the_server(path)
        require(self.volume.digest_on_disk(path) == hashlib.sha256(changed).digest())
        self.volume.remove(path)

    def changed_on_the_server(self, path: str) -> bytes:
        """What a file is after a bit of it turned over on the server's disk, its size and times as before."""
        with (self.server / path).open("r+b", buffering=0) as file:
            status = os.fstat(file.fileno())
            os.pwrite(file.fileno(), bytes([CONTENT[1_000_000] ^ 1]), 1_000_000)
            os.utime(file.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
        return CONTENT[:1_000_000] + bytes([CONTENT[1_000_000] ^ 1]) + CONTENT[1_000_001:]

    def trial_the_digest_comes_past_a_cache_that_is_wrong(self) -> None:
        """Mounted so that this machine's memory is believed: reading is fooled, the digest is not."""
        path = self.put()
        folder = Path(f"/tmp/cached-{self.kind}")
        mount(self.kind, folder, "hard,sync,nocto,actimeo=3600" if self.kind == "nfs" else ",cache=strict")
        cached = open_volume(self.kind, str(folder), "tier3", OPTIONS, Path())
        with (folder / path).open("rb") as kept_open:  # keeps an SMB lease
            require(kept_open.read() == CONTENT)
            changed = self.changed_on_the_server(path)
            if self.kind == "smb":  # the NFS server takes a delegation back when a file is written on its own disk
                require((folder / path).read_bytes() == CONTENT, "the cache was not wrong: this shows nothing")
            require(cached.digest_on_disk(path) == hashlib.sha256(changed).digest(), "the digest was of the cache")
        cached.close()
        run("umount", "-l", str(folder))
        self.volume.remove(path)

    def trial_a_file_that_is_removed_leaves_no_ghost(self) -> None:
        path = self.put()
        self.volume.read_start(path, 10)
        self.volume.remove(path)
        ends = time.monotonic() + 20
        while list((self.server / path).parent.iterdir()):  # NFS keeps .nfs… while somebody has it open
            require(time.monotonic() < ends, list((self.server / path).parent.iterdir()))
            time.sleep(0.1)

    def trial_a_share_that_hangs_is_left_and_taken_again(self) -> None:
        path = self.put()
        disk = Path(f"/tmp/disk-{self.kind}")
        disk.mkdir()
        create_identity(disk, ("tier1",), APPLIANCE_ID)
        local = LocalVolume(disk, "tier1")
        HANG[self.kind]()
        failures: list[PacsError] = []

        def read() -> None:
            try:
                self.volume.digest_on_disk(path)
            except PacsError as error:
                failures.append(error)

        threads = [threading.Thread(target=read) for _ in range(10)]
        for thread in threads:
            thread.start()
        puts = 0
        while any(thread.is_alive() for thread in threads):
            local.put(object_path(1, datetime.now(UTC), "1", SHA256), [CONTENT[:1000]], 1000)
            puts += 1
        require(puts > 0 and len(failures) == 10, failures)
        before = time.monotonic()
        with raises(VolumeMissing, "does not answer"):
            self.volume.put(path, [b"x"], 1)
        with raises(VolumeMissing, "does not answer"):
            self.opened()
        require(time.monotonic() - before < 2 * OPTIONS["timeout_s"])
        WAKE[self.kind]()
        ends = time.monotonic() + 120
        while True:
            try:
                require(self.volume.digest_on_disk(path) == SHA256)
                break
            except VolumeMissing:
                require(time.monotonic() < ends, "it does not come back")
                time.sleep(0.5)
        self.volume.remove(path)
        ends = time.monotonic() + 120
        while self.volume._pool.left_behind():
            require(time.monotonic() < ends, "processes stay")
            time.sleep(0.5)

    def trial_a_server_that_restarts_in_a_put(self) -> None:
        """Mounted hard, what was not yet safe there is sent again."""

        def chunks() -> Iterator[bytes]:
            yield CONTENT[:1_000_000]
            HANG[self.kind]()
            WAKE[self.kind]()
            yield CONTENT[1_000_000:]

        path = object_path(1, datetime.now(UTC), "42", SHA256)
        require(self.volume.put(path, chunks(), len(CONTENT)) == SHA256)
        require(self.volume.digest_on_disk(path) == SHA256)
        self.volume.remove(path)

    def trial_a_share_that_is_full(self) -> None:
        with raises(VolumeFull):
            self.volume.put("objects/1/x", [b"x"], 1 << 40)
        blocker = FAR / "blocker"
        with blocker.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, os.statvfs(FAR).f_bavail * os.statvfs(FAR).f_frsize - (66 << 20))
        try:
            with raises(PacsError):  # the room is asked for before; here it ends on the way
                self.volume.put("objects/1/x", (bytes(1 << 20) for _ in range(80)), 1000)
        finally:
            blocker.unlink()
        require(not self.volume.has("objects/1/x"))

    def trial_a_share_that_is_read_only(self) -> None:
        run("mount", "-o", "remount,ro", str(self.folder))
        try:
            with raises(VolumeFailed, "read-only"):
                self.volume.require_writable()
            with raises(VolumeFailed):
                self.volume.put("objects/1/x", [b"x"], 1)
        finally:
            run("mount", "-o", "remount,rw", str(self.folder))
        self.volume.require_writable()

    def trial_a_share_that_is_gone_and_another_in_its_place(self) -> None:
        path = self.put()
        run("umount", "-l", str(self.folder))
        for ask in (self.volume.require_present, lambda: self.volume.put("objects/1/x", [b"x"], 1)):
            with raises(VolumeMissing, "share is mounted"):
                ask()
        require(list(self.folder.iterdir()) == [], "something was written below the mount point")
        mount(self.kind, self.folder, name="other")
        with raises(VolumeMissing, "There is no volume"):
            self.volume.put("objects/1/x", [b"x"], 1)
        run("umount", "-l", str(self.folder))
        create_identity(FAR / "other", ("tier3",))
        mount(self.kind, self.folder, name="other")
        with raises(ForeignVolume, "Another volume"):
            self.volume.remove(path)
        run("umount", "-l", str(self.folder))
        (FAR / "other/volume.json").unlink()
        mount(self.kind, self.folder)
        self.volume.require_present()
        require(self.volume.digest_on_disk(path) == SHA256)

    def trial_a_mount_that_would_lose_writes_is_refused(self) -> None:
        folder = Path(f"/tmp/careless-{self.kind}")
        mount(self.kind, folder, "soft" if self.kind == "nfs" else ",cache=loose")
        with raises(VolumeError, "mounted soft" if self.kind == "nfs" else "cache=loose"):
            open_volume(self.kind, str(folder), "tier3", OPTIONS, Path())
        run("umount", "-l", str(folder))

    def trial_a_share_that_is_named_once_is_mounted_as_it_must_be(self) -> None:
        """`pacs machine mount` writes a mount unit, of which systemd makes this very call of mount(8)."""
        places = Places(Path("/tmp/srv"))
        name, source = f"named-{self.kind}", {"nfs": "127.0.0.1:/nfs", "smb": "//127.0.0.1/pacs"}[self.kind]
        where, keys = places.volumes / name, places.state / "mounts" / f"{name}.smb"
        for folder in (where, keys.parent):
            folder.mkdir(parents=True, exist_ok=True)
        keys.write_text("username=root\npassword=secret\n")
        unit = dict(
            line.split("=", 1) for line in unit_of(checked(name, source, []), places).splitlines() if "=" in line
        )
        require((unit["Where"], unit["Type"]) == (str(where), {"nfs": "nfs4", "smb": "cifs"}[self.kind]))
        run("mount", "-t", unit["Type"], "-o", unit["Options"], unit["What"], str(where))
        seen = mount_of(where)
        require((seen.why_it_may_not_receive == "") == (self.kind == "nfs"), seen)
        require(self.kind == "nfs" or (where / "volume.json").stat().st_uid == SERVICE_UID)
        named = open_volume(self.kind, str(where), "tier3", {"timeout_s": 60}, Path())
        path = object_path(1, datetime.now(UTC), "45", SHA256)
        require(named.put(path, [CONTENT], len(CONTENT)) == SHA256)
        require(named.digest_on_disk(path) == SHA256 and (self.server / path).read_bytes() == CONTENT)
        named.remove(path)
        named.close()
        run("umount", str(where))


def make_service_user() -> None:
    for name, line in (
        ("passwd", f"pacs:x:{SERVICE_UID}:{SERVICE_UID}::/:/bin/sh\n"),
        ("group", f"pacs:x:{SERVICE_UID}:\n"),
    ):
        copied = Path("/tmp", name)
        copied.write_text(Path("/etc", name).read_text() + line)
        run("mount", "--bind", str(copied), f"/etc/{name}")


def main() -> None:
    share_pool.BACK_OFF_S = (0.5, 2.0)
    make_service_user()
    make_file_system()
    start_nfs()
    start_smb()
    kinds: tuple[Kind, ...] = ("nfs", "smb")
    for kind in kinds:
        trials = Trials(kind)
        for name in [each for each in vars(Trials) if each.startswith("trial_")]:
            problem = ""
            began = time.monotonic()
            try:
                getattr(trials, name)()
            except BaseException:
                problem = traceback.format_exc()
            line = {"name": f"{kind}: {name[6:]}", "problem": problem, "took_s": round(time.monotonic() - began, 1)}
            print(json.dumps(line), flush=True)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
