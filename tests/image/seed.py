"""What a hypervisor's administrator gives an appliance: a NoCloud seed with the administrator's public key."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

ADMINISTRATOR = "admin"


def make_key(folder: Path) -> Path:
    """Make an ed25519 key pair without a passphrase in folder and return the private one's path."""
    key = folder / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "pacs-test", "-f", str(key)], check=True)
    return key


def make_seed(folder: Path, public_key: str, hostname: str, environment: str = "") -> Path:
    """Make seed.iso in folder: NoCloud, label cidata, with public_key for the administrator.

    environment: lines for /etc/pacs/machine.env.
    """
    files = folder / "cidata"
    files.mkdir()
    user = {"name": ADMINISTRATOR, "sudo": "ALL=(ALL) NOPASSWD:ALL", "ssh_authorized_keys": [public_key]}
    config: dict[str, object] = {"users": [user]}
    if environment:
        config["write_files"] = [{"path": "/etc/pacs/machine.env", "content": environment}]
    # YAML is a superset of JSON, and JSON needs no escaping of our own.
    (files / "user-data").write_text("#cloud-config\n" + json.dumps(config) + "\n", "utf-8")
    (files / "meta-data").write_text(json.dumps({"instance-id": hostname, "local-hostname": hostname}) + "\n", "utf-8")
    iso = folder / "seed.iso"
    command = ["xorriso", "-as", "mkisofs", "-quiet", "-J", "-r", "-V", "cidata", "-o", str(iso), str(files)]
    subprocess.run(command, check=True, capture_output=True)
    return iso
