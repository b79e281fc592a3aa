"""An appliance as a hospital has it: a system disk that can be swapped, data disks that stay, and what it was sent."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import testinfra

from packer.accelerator import Accelerator
from tests.image.exchange import CALLING, Account, AssociationRefusedError, Comparison, ExchangeError, compare, echo
from tests.image.hardware import Firmware, Hardware
from tests.image.machine import BOOT_LIMIT_S, HOST_AS_THE_GUEST_SEES_IT, Machine
from tests.image.ova import Imported
from tests.image.seed import make_key, make_seed

DICOM_PORT = 11112


@dataclass
class Installation:
    """One import of the OVA, its machine and the account of what it acknowledged."""

    machine: Machine
    imported: Imported
    account: Account = field(default_factory=Account)
    _system_disks: itertools.count[int] = field(default_factory=lambda: itertools.count(2))

    @property
    def data_disks(self) -> tuple[Path, ...]:
        """The data disks plugged in."""
        return self.machine.hardware.data_disks

    @property
    def dicom_port(self) -> int:
        """The port on 127.0.0.1 that leads to the appliance's."""
        return self.machine.ports[DICOM_PORT]

    def running(self) -> Machine:
        """The machine, booted if it was off."""
        if not self.machine.is_on:
            self.machine.boot()
        return self.machine

    def host(self) -> Any:
        """testinfra's view of the machine, as root; it must be running."""
        return testinfra.get_host("ssh://appliance", ssh_config=str(self.machine.ssh_config), sudo=True)

    def boot_to_dicom(self, limit_s: float = BOOT_LIMIT_S) -> float:
        """Power on and wait until the appliance takes associations, no longer; return the seconds that took."""
        started = time.monotonic()
        self.machine.power_on_to_init()
        deadline = time.monotonic() + limit_s
        while True:
            with contextlib.suppress(ExchangeError):
                echo(self.dicom_port)
                return time.monotonic() - started
            if time.monotonic() > deadline or not self.machine.is_on:
                raise self.machine.failure(f"no association within {limit_s:.0f} s")
            time.sleep(1)

    def complaints(self) -> list[str]:
        """What `pacs check` finds amiss, but for the backup and its drill, as nobody has said where to yet, and for the
        time: the machine of a test reaches no time server."""
        checks = json.loads(self.host().run("pacs check --json").stdout)
        return [
            f"{check['severity']} {check['name']}: {check['message']}"
            for check in checks
            if check["severity"] != "ok" and check["name"] not in ("backup", "drill", "time")
        ]

    def rewire(self, *data_disks: Path) -> None:
        """Plug other data disks in; the machine must be off."""
        self.machine.hardware = self.machine.hardware.with_disks(*data_disks)

    def swap_system_disk(self) -> None:
        """Put a fresh system disk in, as imported and never booted; the machine must be off."""
        fresh = self.imported.system_overlay(self.machine.folder / f"system{next(self._system_disks)}.qcow2")
        self.machine.hardware = replace(self.machine.hardware, system_disk=fresh)

    def plug_in_blank_disk(self, size_bytes: int) -> Path:
        """Plug in one disk more, all zeros; the machine must be off."""
        blank = self.machine.folder / f"blank{len(self.data_disks)}.raw"
        with blank.open("wb") as file:
            file.truncate(size_bytes)
        self.rewire(*self.data_disks, blank)
        return blank

    def plug_in_seed(self) -> None:
        """Put the seed in again; the machine must be off."""
        self.machine.hardware = replace(self.machine.hardware, seed=self.machine.folder / "seed.iso")

    def unplug_seed(self) -> None:
        """Take the seed out; the machine must be off."""
        self.machine.hardware = replace(self.machine.hardware, seed=None)

    def add_device(self) -> None:
        """Make the test's application entity known to the appliance."""
        where = f"--host {HOST_AS_THE_GUEST_SEES_IT} --port 11112"
        self.machine.ssh(f"sudo pacs device add tester --ae-title {CALLING} {where}")

    def refuses_us(self) -> bool:
        """Whether the appliance rejects an association of the test's application entity."""
        try:
            echo(self.dicom_port)
        except AssociationRefusedError:
            return True
        return False

    def forget(self, uids: set[str]) -> None:
        """Take instances off the account: a test has lost them on purpose."""
        for uid in uids:
            self.account.acknowledged.pop(uid, None)

    def compare(self, studies: set[str] | None = None) -> Comparison:
        """Fetch back what was acknowledged, of these studies or of all, and compare."""
        return compare(self.dicom_port, self.account, studies)


def install(imported: Imported, folder: Path, firmware: Firmware, accelerator: Accelerator) -> Installation:
    """Import the OVA once more, into folder, and plug a seed in. The machine is still off."""
    folder.mkdir(parents=True)
    key = make_key(folder)
    hardware = Hardware(
        firmware=firmware,
        accelerator=accelerator,
        cpus=imported.appliance.cpus,
        memory_mib=imported.appliance.memory_mib,
        system_disk=imported.system_overlay(folder / "system1.qcow2"),
        data_disks=tuple(imported.data_copies(folder)),
        seed=make_seed(folder, key.with_suffix(".pub").read_text("utf-8").strip(), f"pacs-{folder.name}"),
    )
    return Installation(Machine(hardware, folder, key), imported)


def remove(installation: Installation) -> None:
    """Take the power away and delete the disks; logs and screen shots stay for whoever looks into a failure."""
    installation.machine.cut_power()
    for disk in [*installation.machine.folder.glob("*.qcow2"), *installation.machine.folder.glob("*.raw")]:
        disk.unlink()
    shutil.rmtree(installation.machine.folder / "cidata", ignore_errors=True)
