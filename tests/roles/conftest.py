"""The stages of an image, each made once: converged twice, prepared for copying, booted as an appliance."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from packer.wheels import wheelhouse
from tests.roles.container import Container
from tests.roles.rootfs import CACHE, REPOSITORY, base


@dataclass(frozen=True)
class Converged:
    """A container after build.yml ran twice, and what the second run printed."""

    container: Container
    second_run: str


@dataclass(frozen=True)
class Image:
    """A container that is switched off, after sysprep and the removal of the build's user."""

    container: Container

    @property
    def root(self) -> Path:
        return self.container.root


@pytest.fixture(scope="session")
def converged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Converged]:
    for tool in ("systemd-nspawn", "mmdebstrap", "nsenter"):
        if not shutil.which(tool):
            pytest.fail(f"{tool} is missing. `make setup` installs it.")
    if os.geteuid() != 0:
        pytest.skip("systemd-nspawn needs root")
    folder = tmp_path_factory.mktemp("roles")
    variables = {
        "appliance_version": "0.0.test",
        "source_date_epoch": 1700000000,
        "release_key": "00" * 32,
        "wheelhouse": str(wheelhouse(REPOSITORY, CACHE, folder, folder / "wheelhouse.log", 1700000000)),
        "base_update_cache": False,
    }
    container = Container(base(), folder)
    try:
        container.boot()
        container.play("build.yml", variables, "--skip-tags", "sysprep")
        second_run = container.play("build.yml", variables, "--skip-tags", "sysprep")
        container.play("build.yml", variables, "--tags", "sysprep")
        yield Converged(container, second_run)
    finally:
        container.remove()


@pytest.fixture(scope="session")
def image(converged: Converged) -> Image:
    container = converged.container
    container.pull_the_plug()
    subprocess.run(["chroot", container.root, "userdel", "--force", "--remove", "builder"], check=True)
    (container.root / "etc/sudoers.d/90-builder").unlink()
    return Image(container)


@pytest.fixture(scope="session")
def image_findings(image: Image) -> dict[str, str]:
    """What `find` sees in the image before its first boot: path by path, with the contents of small files."""
    keep = ("etc/machine-id", "etc/hostname", "etc/shadow", "etc/passwd", "etc/pacs/appliance.env", "etc/pacs/built")
    found = {name: (image.root / name).read_text() for name in keep if (image.root / name).exists()}
    for path in subprocess.check_output(
        ["find", image.root, "-xdev", "(", "-type", "f", "-o", "-type", "d", ")", "-printf", "%P\n"], text=True
    ).splitlines():
        found.setdefault(path, "")
    return found


@dataclass(frozen=True)
class FirstBoot:
    """The image booted for the first time. stored_files: what counts as data on its volumes right after it."""

    container: Container
    stored_files: str


_WHAT_IS_STORED = """
from pathlib import Path
from pacs.machine.survey import stored_files
for role in ("state", "tier1", "tier2"):
    print(*stored_files(Path("/srv/pacs", role), role == "state"))
"""


@pytest.fixture(scope="session")
def spare(
    image: Image, image_findings: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Container]:
    """Another appliance of the same image, not yet booted."""
    container = Container(image.root, tmp_path_factory.mktemp("spare"))
    try:
        yield container
    finally:
        container.remove()


@pytest.fixture(scope="session")
def pristine(image: Image, image_findings: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The root of the image, never booted: appliances are made of it."""
    root = tmp_path_factory.mktemp("pristine") / "root"
    subprocess.run(["cp", "-a", "--reflink=auto", image.root, root], check=True)
    yield root
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def appliance(first_boot: FirstBoot) -> Container:
    return first_boot.container


@pytest.fixture(scope="session")
def first_boot(image: Image, spare: Container, pristine: Path) -> FirstBoot:
    """With a seed, in folders on its own disk. spare, pristine: copied before."""
    container = image.container
    boot_first(container, "pacs-roles")
    (container.root / "root/what.py").write_text(_WHAT_IS_STORED)
    return FirstBoot(container, container.run("/opt/pacs/venv/bin/python /root/what.py").strip())


def boot_first(container: Container, name: str) -> None:
    """Boot the image for the first time."""
    seed = container.root / "var/lib/cloud/seed/nocloud"
    seed.mkdir(parents=True)
    user = {"name": "admin", "ssh_authorized_keys": [(container.folder / "key.pub").read_text().strip()]}
    setting = {"path": "/etc/pacs/machine.env", "content": "PACS_MACHINE_WITHOUT_VOLUMES=1\n"}
    (seed / "user-data").write_text("#cloud-config\n" + json.dumps({"users": [user], "write_files": [setting]}) + "\n")
    (seed / "meta-data").write_text(json.dumps({"instance-id": name, "local-hostname": name}) + "\n")
    container.boot(timeout_s=120)
