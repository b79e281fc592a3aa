"""A virtual machine that boots the imported appliance in QEMU, can be reached by SSH and can lose its power.

The shapes are those of boot-disk.md that exist in QEMU and in the wild: BIOS with VMware's paravirtual SCSI and
vmxnet3, UEFI with NVMe, virtio-scsi and virtio-net. Every port of the guest is reached through a port forwarded from
127.0.0.1; the guest sees its peers as 10.0.2.2.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.image.hardware import BAYS, Hardware
from tests.image.power import DiskServer
from tests.image.seed import ADMINISTRATOR

HOST_AS_THE_GUEST_SEES_IT = "10.0.2.2"
BOOT_LIMIT_S = 300.0
KERNEL_LIMIT_S = 120.0
_TIMERS_STOPPED = "rcu: rcu_preempt kthread "  # … timer wakeup didn't happen; … starved
_INIT_STARTED = "running in system mode"  # systemd, of the system disk
END_OF_BOOT_LIMIT_S = 600.0  # a first boot makes the database, on an emulated machine
_GUEST_PORTS = (22, 80, 104, 443, 2762, 11112)


class MachineError(Exception):
    """The machine did not do what it was asked to; the message ends with the end of its serial log."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Machine:
    """One virtual machine, from power on to power off. `folder` holds its sockets, serial log and screen shots.

    Its host key must stay the same over all boots, unless `trusts_any_host_key`: without its volumes an appliance has
    none to keep.
    """

    hardware: Hardware
    folder: Path
    key: Path
    ports: dict[int, int] = field(default_factory=lambda: {port: free_port() for port in _GUEST_PORTS})
    trusts_any_host_key: bool = False
    _qemu: subprocess.Popen[bytes] | None = None
    _disks: list[DiskServer] = field(default_factory=list)
    _boots: int = 0

    @property
    def serial_log(self) -> Path:
        """What the guest wrote to its serial port since this power on."""
        return self.folder / f"serial-{self._boots}.log"

    @property
    def is_on(self) -> bool:
        """Whether the machine has power."""
        return self._qemu is not None and self._qemu.poll() is None

    def power_on(self) -> None:
        """Start the machine; return at once."""
        if self.is_on:
            raise MachineError("the machine is on already")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._boots += 1
        self._disks = [
            DiskServer(disk, self.folder / f"disk{number}.sock")
            for number, disk in enumerate(self.hardware.data_disks, start=1)
        ]
        with (self.folder / "qemu.log").open("ab") as log:
            self._qemu = subprocess.Popen(self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.ssh_config.write_text(self._ssh_config_text(), "utf-8")

    def power_on_to_init(self) -> None:
        """Power on and wait until the kernel has started init from the system disk.

        Under emulation on a busy host a kernel sometimes stops for ever while it looks for hardware (in the initial RAM
        disk a driver waits for the probing of an emulated controller), before anything of the appliance runs: then the
        power is cycled, once.
        """
        self.power_on()
        deadline = time.monotonic() + KERNEL_LIMIT_S
        while self.is_on and _INIT_STARTED not in self.read_serial():
            if time.monotonic() > deadline:
                print(f"the emulated kernel did not reach init in {KERNEL_LIMIT_S:.0f} s, see {self.serial_log}")
                self.cut_power()
                self.power_on()
                return
            time.sleep(1)

    def boot(self, limit_s: float = BOOT_LIMIT_S) -> float:
        """Power on, wait for SSH and for the end of the boot; return the seconds until SSH answered."""
        started = time.monotonic()
        self.power_on_to_init()
        try:
            self.wait_for_ssh(limit_s)
        except MachineError:
            if not self.is_on or _TIMERS_STOPPED not in self.read_serial():
                raise
            # As in power_on_to_init, later: the kernel itself says that its emulated timer interrupts stay away.
            print(f"the emulated kernel's timers stopped, see {self.serial_log}")
            self.cut_power()
            self.power_on_to_init()
            self.wait_for_ssh(limit_s)
        seconds = time.monotonic() - started
        self.wait_for_end_of_boot()
        return seconds

    def wait_for_end_of_boot(self) -> None:
        """Wait until systemd has nothing more to start. Raise MachineError after END_OF_BOOT_LIMIT_S."""
        # It fails unless the state is "running": a test looks at that, with a better message.
        try:
            self.ssh("systemctl is-system-running --wait", check=False, timeout_s=END_OF_BOOT_LIMIT_S)
        except subprocess.TimeoutExpired:
            jobs = self.ssh("systemctl list-jobs --no-pager", check=False).stdout
            raise self.failure(f"the boot goes on after {END_OF_BOOT_LIMIT_S:.0f} s, waiting for:\n{jobs}") from None

    def wait_for_ssh(self, limit_s: float = BOOT_LIMIT_S) -> None:
        """Wait until the administrator can log in. Raise MachineError after limit_s seconds or if QEMU ends."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            if not self.is_on:
                raise self.failure(f"QEMU ended, see {self.folder / 'qemu.log'}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                if self.ssh("true", check=False, timeout_s=15).returncode == 0:
                    return
            time.sleep(1)
        raise self.failure(f"no SSH login within {limit_s:.0f} s")

    def wait_for_serial(self, text: str, limit_s: float = BOOT_LIMIT_S) -> str:
        """Wait until text is in the serial log; return the log."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            log = self.read_serial()
            if text in log:
                return log
            if not self.is_on:
                break
            time.sleep(1)
        raise self.failure(f"{text!r} did not come on the serial port within {limit_s:.0f} s")

    def ssh(self, command: str, *, check: bool = True, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a shell command as the administrator."""
        result = subprocess.run(
            ["ssh", "-F", str(self.ssh_config), "appliance", command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        if check and result.returncode != 0:
            raise self.failure(f"{command!r} ended with {result.returncode}: {result.stdout}{result.stderr}")
        return result

    def ssh_without_key(self) -> subprocess.CompletedProcess[str]:
        """Try to log in with anything but a key, as somebody else would."""
        options = ["-o", "PubkeyAuthentication=no", "-o", "PreferredAuthentications=password,keyboard-interactive"]
        options += ["-o", "BatchMode=yes", "-o", "ControlPath=none", "-o", "LogLevel=INFO"]
        command = ["ssh", *options, "-F", str(self.ssh_config), "appliance", "true"]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)

    def copy_in(self, source: Path, target: str) -> None:
        """Copy a file to target, a path in the administrator's home or /tmp."""
        subprocess.run(["scp", "-q", "-F", str(self.ssh_config), str(source), f"appliance:{target}"], check=True)

    @property
    def boot_id(self) -> str:
        """What is another one after each start of the kernel."""
        return self.ssh("cat /proc/sys/kernel/random/boot_id").stdout.strip()

    def wait_for_restart(self, before: str, limit_s: float = BOOT_LIMIT_S) -> str:
        """Wait until the guest, which had that boot id, has started anew by itself; return the new one."""
        deadline = time.monotonic() + limit_s
        while True:
            self._forget_connection()
            self.wait_for_ssh(max(deadline - time.monotonic(), 1))
            try:
                if (now := self.boot_id) != before:
                    return now
            except (MachineError, subprocess.TimeoutExpired):
                continue  # it went down between the two
            if time.monotonic() > deadline:
                raise self.failure(f"it did not restart within {limit_s:.0f} s")
            time.sleep(2)

    def cut_power(self) -> None:
        """Take the power away: nothing in the guest gets a chance to flush, and unflushed writes are lost."""
        # QEMU stops first, so that it can't send on what the guest had in the queue while its disks go one by one.
        if self._qemu is not None and self._qemu.poll() is None:
            self._qemu.send_signal(signal.SIGSTOP)
        for disk in self._disks:
            disk.cut()
        self._disks = []
        if self._qemu is not None:
            self._qemu.kill()
            self._qemu.wait()
        self._qemu = None
        self._forget_connection()

    def shut_down(self, limit_s: float = 120) -> None:
        """Press the power button and wait for the guest to go."""
        if self._qemu is None:
            return
        for press in (1, 2):  # under emulation a first press was seen to be lost; whoever stands there presses again
            self._monitor("system_powerdown")
            try:
                self._qemu.wait(limit_s)
                break
            except subprocess.TimeoutExpired:
                if press == 2:
                    raise self.failure(f"the guest did not shut down within {2 * limit_s:.0f} s") from None
                print(f"{self.folder.name}: nothing came of the power button within {limit_s:.0f} s; pressed again")
        for disk in self._disks:
            disk.close()
        self._disks = []
        self._qemu = None
        self._forget_connection()

    def plug_in(self, device: str, disk: Path) -> None:
        """Plug a raw disk in while it runs; `device` is its serial number, and what it is pulled by."""
        node = {"driver": "raw", "node-name": f"node-{device}", "file": {"driver": "file", "filename": str(disk)}}
        self._monitor("blockdev-add", **node)
        words = {"driver": "scsi-hd", "bus": BAYS, "drive": f"node-{device}", "id": device, "serial": device}
        self._monitor("device_add", **words)

    def pull(self, device: str) -> None:
        """Pull a disk that was plugged in into a bay, as a hand does: the guest is not asked."""
        self._monitor("device_del", id=device)

    def wait_for_power_off(self, limit_s: float) -> None:
        """Wait until the guest has switched itself off."""
        assert self._qemu is not None
        try:
            self._qemu.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise self.failure(f"the guest did not switch itself off within {limit_s:.0f} s") from None
        for disk in self._disks:
            disk.close()
        self._disks = []
        self._qemu = None
        self._forget_connection()

    def screenshot(self, name: str = "screen.png") -> Path:
        """Save what the display shows as a PNG in the machine's folder and return its path."""
        path = self.folder / name
        self._monitor("screendump", filename=str(path), format="png")
        return path

    def read_serial(self) -> str:
        """The serial log so far."""
        return self.serial_log.read_text("utf-8", "replace") if self.serial_log.exists() else ""

    def failure(self, message: str) -> MachineError:
        """An error with the end of the serial log and, if the machine is on, a screen shot."""
        shot = ""
        if self.is_on:
            with contextlib.suppress(OSError, MachineError):
                shot = f"\nscreen: {self.screenshot('failure.png')}"
        tail = "\n".join(self.read_serial().splitlines()[-40:])
        return MachineError(f"{message}{shot}\nend of {self.serial_log}:\n{tail}")

    @property
    def ssh_config(self) -> Path:
        """An OpenSSH configuration that knows the host `appliance`."""
        return self.folder / "ssh_config"

    @property
    def known_hosts(self) -> Path:
        """The host keys seen: the first is believed, another one later is refused."""
        return self.folder / "known_hosts"

    def _ssh_config_text(self) -> str:
        options = {
            "HostName": "127.0.0.1",
            "HostKeyAlias": "appliance",
            "Port": self.ports[22],
            "User": ADMINISTRATOR,
            "IdentityFile": self.key,
            "IdentitiesOnly": "yes",
            "PreferredAuthentications": "publickey",
            "StrictHostKeyChecking": "no" if self.trusts_any_host_key else "accept-new",
            "UserKnownHostsFile": "/dev/null" if self.trusts_any_host_key else self.known_hosts,
            "ConnectTimeout": 10,
            "ServerAliveInterval": 5,
            "ServerAliveCountMax": 6,
            # A login costs the emulated machine about a second: keep one open.
            "ControlMaster": "auto",
            "ControlPath": self.folder / "ssh.sock",
            "ControlPersist": 300,
            "LogLevel": "ERROR",
        }
        return "Host appliance\n" + "".join(f"  {name} {value}\n" for name, value in options.items())

    def _forget_connection(self) -> None:
        subprocess.run(["ssh", "-F", str(self.ssh_config), "-O", "exit", "appliance"], capture_output=True)
        (self.folder / "ssh.sock").unlink(missing_ok=True)

    def _command(self) -> list[str]:
        forwards = "".join(f",hostfwd=tcp:127.0.0.1:{here}-:{there}" for there, here in self.ports.items())
        # setpriv: should the tests be killed, the machine goes with them.
        arguments = ["setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-name", "pacs-test", "-nodefaults"]
        arguments += ["-no-user-config", "-display", "none", "-serial", f"file:{self.serial_log}"]
        arguments += ["-qmp", f"unix:{self.folder / 'qmp.sock'},server=on,wait=off"]
        arguments += ["-netdev", f"user,id=net0{forwards}"]
        return arguments + self.hardware.arguments(self.folder, [disk.socket for disk in self._disks])

    def _monitor(self, command: str, **arguments: object) -> None:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(30)
            link.connect(os.fspath(self.folder / "qmp.sock"))
            answers = link.makefile("r")
            answers.readline()  # the greeting
            for request in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
                link.sendall(json.dumps(request).encode() + b"\n")
                while (answer := json.loads(answers.readline())).get("return") is None:
                    if "error" in answer:
                        raise MachineError(f"QEMU refuses {command}: {answer['error']['desc']}")
