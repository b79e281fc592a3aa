"""The Packer run: the base disk booted, Ansible in it, and the finished system disk out of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from packer.accelerator import Accelerator
from packer.base.layout import DISK_SIZE_MIB
from packer.preflight import FIRST_PACKER_WITH_PLUGINS
from packer.progress import run_logged

TEMPLATE = Path(__file__).parent
USER = "builder"


@dataclass(frozen=True)
class Plan:
    """What goes into one run."""

    version: str
    epoch_s: int
    base_disk: Path
    playbook: Path
    wheelhouse: Path
    accelerator: Accelerator
    #: The public half of the release key, in hex.
    release_key: str


def build_system_disk(plan: Plan, packer: tuple[int, int, int], scratch: Path, logs: Path) -> Path:
    """Run Packer; the qcow2 of the system disk. `scratch` gets a folder for this run, which is removed before it."""
    folder = (scratch / "packer").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    log = logs / "packer.log"
    if packer >= FIRST_PACKER_WITH_PLUGINS:
        run_logged(
            ["packer", "init", TEMPLATE / "plugins"],
            log,
            remedy="Packer fetches its plugins once: look at the network.",
        )
    arguments = variables(plan, folder, logs.resolve())
    file = folder / "build.pkrvars.json"
    file.write_text(json.dumps(arguments, indent=2))
    run_logged(
        ["packer", "build", "-color=false", "-timestamp-ui", f"-var-file={file}", TEMPLATE],
        log,
        remedy=f"Read the log; what the guest said on its serial port is in {logs / 'serial.log'}.",
        # Packer's own temporary files, its copy of the disk among them in some versions, stay out of /tmp.
        env={"TMPDIR": str(folder), "PACKER_CACHE_DIR": str(folder / "cache"), "CHECKPOINT_DISABLE": "1"},
    )
    return folder / "output" / "system.qcow2"


def variables(plan: Plan, folder: Path, logs: Path) -> dict[str, str | list[str]]:
    """The template's variables; makes the key and the seed they name in `folder`."""
    key = folder / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", USER, "-f", str(key)], check=True)
    seed = {"user-data": user_data(key.with_suffix(".pub").read_text()), "meta-data": "instance-id: build\n"}
    for name, text in seed.items():
        (folder / name).write_text(text)
    return {
        "appliance_version": plan.version,
        "source_date_epoch": str(plan.epoch_s),
        "base_disk": str(plan.base_disk.resolve()),
        "disk_size": f"{DISK_SIZE_MIB}M",
        "accel": plan.accelerator.accel,
        "cpu_model": plan.accelerator.cpu,
        "seed_files": [str(folder / name) for name in seed],
        "ssh_private_key_file": str(key),
        "ssh_timeout": "5m" if plan.accelerator.is_kvm else "20m",
        "ansible_playbook": str(Path(sys.executable).parent / "ansible-playbook"),
        "playbook": str(plan.playbook.resolve()),
        "wheelhouse": str(plan.wheelhouse.resolve()),
        "release_key": plan.release_key,
        "output_directory": str(folder / "output"),
        "serial_log": str(logs / "serial.log"),
    }


def user_data(public_key: str) -> str:
    """The seed's user-data: the builder, by key. JSON is YAML, and needs no care with quotes."""
    user = {
        "name": USER,
        "shell": "/bin/bash",
        "sudo": "ALL=(ALL) NOPASSWD:ALL",
        "lock_passwd": True,
        "ssh_authorized_keys": [public_key.strip()],
    }
    return "#cloud-config\n" + json.dumps({"users": [user]}, indent=2) + "\n"
