"""`make appliance`: from the Debian archive to dist/, in nine stages a person can follow.

Everything is made in build/ and moved to dist/ when all of it is there. A second run takes the base disk and the
dependencies' wheels from the cache.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from packer import accelerator, backports, preflight
from packer.base.disk import BaseDisk, base_disk
from packer.errors import BuildError
from packer.machine import Plan, build_system_disk
from packer.mirrors import GUEST_RELEASE, Mirrors, host_mirrors, packages_digest
from packer.ova.export import NAME, Exported, Release, export
from packer.ova.signature import signer_of_environment
from packer.progress import Progress, fail, say, spoken
from packer.upgrade import ReleaseKey, release_key, this_system, write_upgrade
from packer.upgrade import tell as tell_of_key
from packer.wheels import wheelhouse

REPOSITORY = Path(__file__).resolve().parent.parent
STAGES = 9
GIB = preflight.GIB
BUILD_BYTES, CACHE_BYTES, DIST_BYTES = 12 * GIB, 2 * GIB, 5 * GIB


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the appliance; the exit code."""
    options = _options(arguments)
    logs: Path = options.build / "logs"
    for number in (signal.SIGTERM, signal.SIGHUP):
        # As Ctrl-C: what runs has a process group of its own, and would go on alone.
        signal.signal(number, signal.default_int_handler)
    try:
        preflight.check_writable(options.build)
        with _alone(options.build):
            shutil.rmtree(logs, ignore_errors=True)
            _build(options, Progress(STAGES, logs))
    except BuildError as error:
        return fail(error, logs)
    except KeyboardInterrupt:
        return fail(BuildError("Interrupted.", "Start again; what was finished is reused."), logs)
    except OSError as error:
        return fail(
            BuildError(f"{error}.", "Look at that file or folder, make room if the disk is full, and start again."),
            logs,
        )
    return 0


def _build(options: argparse.Namespace, progress: Progress) -> None:
    build: Path = options.build
    release = Release(read_version(), source_date_epoch())
    say(f"Building {release.stem}. Full logs: {progress.logs}")
    with progress.stage("preflight"):
        packer, mirrors = _preflight(options)
        key = release_key()
        tell_of_key(key)
        signer = signer_of_environment()
        say(f"      the OVA is signed by {signer.name}" if signer else "      the OVA is not signed: PACS_OVA_KEY")
    with progress.stage("base disk"):
        base = base_disk(options.cache, build, progress.log("base-disk"), mirrors)
        say(f"      {'reused' if base.reused else 'new'}: {base.disk}")
    with progress.stage("emulator"):
        chosen = _accelerator(base, mirrors, build, progress.log("emulator"))
        say(f"      {chosen.why}")
    with progress.stage("wheelhouse"):
        wheels = wheelhouse(REPOSITORY, options.cache, build, progress.log("wheelhouse"), release.epoch_s)
    with progress.stage("appliance: Packer and Ansible"):
        plan = Plan(release.version, release.epoch_s, base.disk, options.playbook, wheels, chosen, key.public)
        system = build_system_disk(plan, packer, build, progress.logs)
    folder = build / "export"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with progress.stage("list of parts and manifest"):
        from packer.describe import describe  # here, as it imports a schema's grammars, for seconds

        described = describe(system, folder, release, progress.log("parts"))
    with progress.stage("export"):
        exported = export(system, folder, release, progress.log("export"), signer=signer).with_files(*described)
    with progress.stage("upgrade file"):
        exported = _with_upgrade(exported, system, release, key, progress.log("upgrade-file"))
    with progress.stage(f"into {options.dist}"):
        publish(exported.files, options.dist)
    shutil.rmtree(system.parent.parent)
    _summary(exported, options.dist, release, progress)


def _with_upgrade(exported: Exported, system: Path, release: Release, key: ReleaseKey, log: Path) -> Exported:
    """The release with the upgrade file, and the key that it is signed with."""
    target = exported.ova.with_name(f"{release.stem}.upgrade")
    write_upgrade(system, target, this_system(release.version), release.epoch_s, key, log)
    public = target.with_suffix(".pub")
    public.write_text(f"{key.public}\n")
    return exported.with_files(target, public)


def _preflight(options: argparse.Namespace) -> tuple[tuple[int, int, int], Mirrors | None]:
    preflight.check_tools()
    packer = preflight.packer_version()
    for folder in (options.dist, options.cache):
        preflight.check_writable(folder)
    preflight.check_space({options.build: BUILD_BYTES, options.cache: CACHE_BYTES, options.dist: DIST_BYTES})
    if not options.playbook.is_file():
        raise BuildError(f"{options.playbook} is not there.", "Run this in a whole clone of the repository.")
    mirrors = host_mirrors()
    if mirrors:
        packages_digest(mirrors, GUEST_RELEASE)
    return packer, mirrors


def _accelerator(base: BaseDisk, mirrors: Mirrors | None, build: Path, log: Path) -> accelerator.Accelerator:
    refusal = accelerator.kvm_refusal(base.kernel)
    if refusal is None:
        return accelerator.choose(base.kernel)
    if accelerator.qemu_version()[:2] < accelerator.SOUND_MULTI_THREADED_TCG:
        backports.try_install(mirrors, build, log)
    return accelerator.emulation(accelerator.qemu_version(), refusal)


def read_version() -> str:
    """The version in pacs/__init__.py, without importing the service."""
    found = re.search(
        r'^__version__ = "([0-9A-Za-z.+-]+)"$', (REPOSITORY / "pacs/__init__.py").read_text(), re.MULTILINE
    )
    if not found:
        raise BuildError("pacs/__init__.py has no __version__.", 'Give it a line like: __version__ = "1.2.3"')
    return found[1]


def source_date_epoch() -> int:
    """The time that stands in what is built: SOURCE_DATE_EPOCH, else the last commit's, else now."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    command = ["git", "-C", str(REPOSITORY), "log", "-1", "--format=%ct"]
    with contextlib.suppress(OSError, ValueError):
        return int(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
    return int(time.time())


def publish(files: Sequence[Path], dist: Path) -> None:
    """Move finished files into `dist`; earlier releases there go. Nothing half made is ever seen under its name."""
    incoming = dist / f".incoming.{os.getpid()}"
    shutil.rmtree(incoming, ignore_errors=True)
    incoming.mkdir(parents=True)
    try:
        for path in files:
            shutil.move(path, incoming / path.name)
        for old in [*dist.glob(f"{NAME}-*"), *dist.glob("SHA256SUMS")]:
            old.unlink()
        for path in files:
            (incoming / path.name).rename(dist / path.name)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)


@contextlib.contextmanager
def _alone(build: Path) -> Iterator[None]:
    """One build a folder at a time."""
    build.mkdir(parents=True, exist_ok=True)
    with (build / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BuildError(
                f"Another build is running in {build}.", "Wait for it, or give --build another folder."
            ) from None
        yield


def _summary(exported: Exported, dist: Path, release: Release, progress: Progress) -> None:
    say(
        f"\nDone in {spoken(progress.elapsed_s)}: "
        + ", ".join(f"{name} {spoken(s)}" for name, s in progress.done)
        + "\n"
    )
    for path in exported.files[:-1]:
        finished = dist / path.name
        say(f"  {finished.stat().st_size / 1e6:7.1f} MB  {finished}\n              {exported.digests[path.name]}")
    say(_IMPORT.format(stem=release.stem))


_IMPORT = """
How to import it, one line each (docs/install has a page for each):
  VMware      Deploy OVF Template with {stem}.ova
  VirtualBox  VBoxManage import {stem}.ova
  Proxmox     tar xf {stem}.ova && qm importovf 900 {stem}.ovf local-lvm && qm set 900 --net0 virtio,bridge=vmbr0
  Hyper-V     New-VM -Generation 2 -VHDPath {stem}.vhdx, and three disks more
  libvirt     virt-install --import --name pacs --memory 4096 --vcpus 2 --osinfo debian11 --disk {stem}.qcow2 \\
              --disk size=8 --disk size=16 --disk size=32
  Vagrant     vagrant up"""


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m packer.build", description=__doc__)
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser.add_argument("--build", type=Path, default=REPOSITORY / "build", help="where everything is made")
    parser.add_argument("--dist", type=Path, default=REPOSITORY / "dist", help="where the finished files go")
    parser.add_argument("--cache", type=Path, default=cache_home / NAME, help="where base disks and wheels are kept")
    parser.add_argument(
        "--playbook", type=Path, default=REPOSITORY / "playbooks/build.yml", help="what makes the appliance"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
