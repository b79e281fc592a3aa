"""Who may come in by SSH, and the host's own keys.

Host keys live on the state volume, so that a new system disk on old data disks is the same host to its
administrators. While there is no state volume they live in memory, until the next boot: an administrator must be able
to come in and see why. sshd reads them from /run/pacs-access in both cases.

Administrators' keys come with a seed, for the user `admin`, and are kept on the state volume, in config/ssh/admin.
To take a key away, remove it there and in /home/admin/.ssh/authorized_keys.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from pacs.machine.commands import output, run
from pacs.storage import durable

KINDS = ("ed25519", "ecdsa")
ADMINISTRATOR = "admin"


@dataclass(frozen=True)
class Keys:
    """Where keys are on this machine; tests have their own."""

    host_keys: Path = Path("/run/pacs-access")
    seeded: Path = Path(f"/home/{ADMINISTRATOR}/.ssh/authorized_keys")
    authorized: Path = Path(f"/etc/ssh/authorized_keys.d/{ADMINISTRATOR}")


def prepare(keys: Keys, state: Path | None) -> None:
    """Have host keys for sshd and the administrators' keys. `state`: the state volume, if there is one."""
    keys.host_keys.mkdir(mode=0o755, parents=True, exist_ok=True)
    for kind in KINDS:
        name = f"ssh_host_{kind}_key"
        if state:
            kept = state / "identity/ssh" / name
            make_host_key(kept, kind)
            for suffix in ("", ".pub"):
                _copy(kept.with_name(name + suffix), keys.host_keys / (name + suffix))
        else:
            make_host_key(keys.host_keys / name, kind)
    if state:
        _keep_administrators(keys, state / "config/ssh" / ADMINISTRATOR)


def make_host_key(path: Path, kind: str) -> None:
    """Make a host key without a passphrase, durably, unless there is one. Its public half ends in .pub."""
    if path.exists():
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = path.with_name(f"unfinished_{kind}")
    unfinished.unlink(missing_ok=True)
    run("ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "pacs-appliance", "-f", str(unfinished))
    # The private half last: where it is, both are.
    public = unfinished.with_name(unfinished.name + ".pub")
    durable.replace_file(path.with_name(path.name + ".pub"), public.read_bytes(), 0o644)
    durable.replace_file(path, unfinished.read_bytes(), 0o600)
    unfinished.unlink()
    public.unlink()


def fingerprint(keys: Keys) -> str:
    """The fingerprint that an administrator compares on the first connection; empty while there is no key."""
    public = keys.host_keys / "ssh_host_ed25519_key.pub"
    return output("ssh-keygen", "-l", "-f", str(public)).split()[1] if public.exists() else ""


def merge(kept: str, seeded: str) -> str:
    """The lines of both, each once, kept ones first; comments and empty lines of the seed left out."""
    lines = kept.splitlines()
    for line in seeded.splitlines():
        if line.strip() and not line.lstrip().startswith("#") and line not in lines:
            lines.append(line)
    return "".join(f"{line}\n" for line in lines)


def _keep_administrators(keys: Keys, kept: Path) -> None:
    before = kept.read_text("utf-8") if kept.exists() else ""
    seeded = keys.seeded.read_text("utf-8") if keys.seeded.exists() else ""
    after = merge(before, seeded)
    if after != before:
        durable.make_folders(kept.parent)
        durable.replace_file(kept, after.encode(), 0o644)
    if after:
        keys.authorized.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        durable.replace_file(keys.authorized, after.encode(), 0o644)


def _copy(source: Path, target: Path) -> None:
    """Copy with the mode, which is right from the first byte."""
    target.unlink(missing_ok=True)
    target.touch(mode=source.stat().st_mode & 0o777)
    shutil.copyfile(source, target)
