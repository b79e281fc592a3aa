"""What the tests of the image share: one import of the OVA, one machine of each firmware, in an order of few boots.

Booting costs half a minute where there is no hardware virtualisation. So a machine lives for the session, only one
runs at a time, and the tests run in the order of _ORDER: first what a look at the disk shows, then one BIOS machine
through its whole story, then UEFI, then the machines that must refuse to start.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from packer.accelerator import Accelerator, choose
from tests.image.filesystem import RootFilesystem, root_filesystem
from tests.image.hardware import Firmware
from tests.image.installation import Installation, install, remove
from tests.image.ova import Imported, import_disks, unpack

_DIST = Path(__file__).parents[2] / "dist"
_TEST_LIMIT_S = 900  # what a test waits for is a boot or two, on an emulated machine
_ORDER = (
    "test_disk",
    "test_services",
    "test_security",
    "test_screen",
    "test_story",
    "test_backup",
    "test_uefi",
    "test_ups",
    "test_raid",
    "test_upgrade",
    "test_system_disk",
    "test_refusals",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Undo pytest-randomly's shuffle for this folder: the order saves boots, though nothing depends on it."""
    here = Path(__file__).parent
    ours = [item for item in items if item.path.parent == here]
    ours.sort(key=lambda item: (_place(item.path.stem), item.path.stem, item.reportinfo()[1] or 0))
    others = [item for item in items if item.path.parent != here]
    for item in ours:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_TEST_LIMIT_S))
    items[:] = others + ours


def _place(module: str) -> int:
    return _ORDER.index(module) if module in _ORDER else len(_ORDER)


@pytest.fixture(scope="session")
def ova() -> Path:
    """The OVA to test: the newest in dist/, or PACS_OVA."""
    given = os.environ.get("PACS_OVA")
    if given:
        return Path(given)
    built = sorted(_DIST.glob("pacs-appliance-*.ova"), key=lambda path: path.stat().st_mtime)
    if not built:
        pytest.fail("There is no dist/pacs-appliance-*.ova: run `make appliance` first, or name one in PACS_OVA.")
    return built[-1]


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """Where this run's disks and logs are: below PACS_TEST_FOLDER, or a temporary folder. Sockets need a short path."""
    parent = os.environ.get("PACS_TEST_FOLDER")
    if parent:
        Path(parent).mkdir(parents=True, exist_ok=True)
        yield Path(tempfile.mkdtemp(prefix="image-", dir=parent))
        return
    with tempfile.TemporaryDirectory(prefix="pacs-image-") as name:
        yield Path(name)


@pytest.fixture(scope="session")
def imported(ova: Path, folder: Path) -> Imported:
    """The OVA's disks as a hypervisor has them after the import."""
    return import_disks(unpack(ova, folder / "ova"), folder / "imported")


@pytest.fixture(scope="session")
def root(imported: Imported) -> RootFilesystem:
    """The root file system as imported, never booted."""
    return root_filesystem(imported.system_disk)


@pytest.fixture(scope="session")
def accelerator(root: RootFilesystem, folder: Path) -> Accelerator:
    """How QEMU runs here: KVM only if it boots the appliance's own kernel."""
    kernel = folder / "vmlinuz"
    name = next(name for name in reversed(root.names("/boot")) if name.startswith("vmlinuz-"))
    kernel.write_bytes(root.read(f"/boot/{name}"))
    return choose(kernel)


@pytest.fixture(scope="session")
def installations(imported: Imported, folder: Path, accelerator: Accelerator) -> Iterator[dict[Firmware, Installation]]:
    """An import of the OVA for each firmware, not yet booted."""
    made = {firmware: install(imported, folder / firmware.value, firmware, accelerator) for firmware in Firmware}
    yield made
    for installation in made.values():
        remove(installation)


def _only(firmware: Firmware, installations: dict[Firmware, Installation]) -> Installation:
    """The installation of that firmware, running, and every other one off."""
    for other, installation in installations.items():
        if other is not firmware and installation.machine.is_on:
            installation.machine.shut_down()
    wanted = installations[firmware]
    wanted.running()
    return wanted


@pytest.fixture
def site(installations: dict[Firmware, Installation]) -> Installation:
    """The BIOS machine, running: the one that most tests look at."""
    return _only(Firmware.BIOS, installations)


@pytest.fixture
def uefi_site(installations: dict[Firmware, Installation]) -> Installation:
    """The UEFI machine, running."""
    return _only(Firmware.UEFI, installations)


@pytest.fixture
def host(site: Installation) -> Any:
    """testinfra's view of the BIOS machine."""
    return site.host()


@pytest.fixture
def uefi_host(uefi_site: Installation) -> Any:
    """testinfra's view of the UEFI machine."""
    return uefi_site.host()


@pytest.fixture(scope="module")
def another(
    request: pytest.FixtureRequest, imported: Imported, folder: Path, accelerator: Accelerator
) -> Iterator[Installation]:
    """A module's own import of the OVA, on BIOS, that is not yet booted when its first test comes."""
    name = str(request.module.__name__).rpartition(".")[2]
    made = install(imported, folder / name.removeprefix("test_"), Firmware.BIOS, accelerator)
    yield made
    remove(made)


@pytest.fixture
def alone(another: Installation, installations: dict[Firmware, Installation]) -> Installation:
    """It, running with the system disk that it has, and every other one off."""
    for other in installations.values():
        other.machine.shut_down()
    another.running()
    return another
