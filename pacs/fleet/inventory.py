"""The appliances of an Ansible inventory: the one that playbooks/ uses, read by Ansible itself.

    appliance:
      hosts:
        north.example.org:
          ansible_user: admin
          pacs_command: sudo -n pacs     # how `pacs` is called there; this is the default

`ansible-inventory` reads it, so that every form which Ansible takes is taken, group_vars and plugins too. Of a host's
variables those count that say how to come there; what would weaken the check of host keys is refused.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pacs.errors import NotFound, SettingsError, UsageError

GROUP = "appliance"
COMMAND = "sudo -n pacs"


@dataclass(frozen=True)
class Appliance:
    """An appliance, and how to come to it."""

    name: str
    host: str
    port: int | None = None
    user: str | None = None
    #: The private key's file; None: what the agent and ~/.ssh have.
    key_file: Path | None = None
    #: The words that `pacs` is called with there.
    command: str = COMMAND
    #: An ssh_config(5) of its own, and where known host keys are; None: the user's.
    ssh_config: Path | None = None
    known_hosts: Path | None = None
    #: A folder there that the user may write to, with room for an upgrade file; `.`: the user's own.
    upload_folder: str = "."
    #: How another appliance comes to it, where that is not the workstation's way; in a move.
    peer_host: str = ""
    peer_port: int = 22


def appliances(inventory: Path | None, names: tuple[str, ...] = ()) -> list[Appliance]:
    """The appliances of an inventory (None: Ansible's own choice: ANSIBLE_INVENTORY, ansible.cfg), in its order; with
    names only those.

    Raise SettingsError if it cannot be read, NotFound if a name is not in it.
    """
    known = {each.name: each for each in _parse(_listed(inventory))}
    if not known:
        raise SettingsError(f"There is no host in the inventory's group `{GROUP}`. See docs/operate/fleet.md.")
    for name in names:
        if name not in known:
            raise NotFound(f"There is no appliance {name} in the inventory. It has {', '.join(known)}.")
    return [known[name] for name in dict.fromkeys(names)] if names else list(known.values())


def _listed(inventory: Path | None) -> dict[str, Any]:
    beside = Path(sys.executable).parent / "ansible-inventory"
    program = str(beside) if beside.exists() else shutil.which("ansible-inventory")
    if program is None:
        raise UsageError("`ansible-inventory` is not here: it reads the inventory. `make setup` installs it.")
    if inventory is not None and not inventory.exists():
        raise NotFound(f"There is no inventory {inventory}. Give `--inventory inventories/production`.")
    words = [program, "--list", *(("-i", str(inventory)) if inventory else ())]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    try:
        found = json.loads(done.stdout)
    except ValueError:
        found = None
    if done.returncode or not isinstance(found, dict):
        said = " ".join(done.stderr.split())[-400:]
        raise SettingsError(f"The inventory cannot be read: {said or 'ansible-inventory says nothing'}.")
    return found


def _parse(listed: Mapping[str, Any]) -> list[Appliance]:
    variables = listed.get("_meta", {}).get("hostvars", {})
    return [appliance_of(name, variables.get(name, {})) for name in _members(listed, GROUP)]


def _members(listed: Mapping[str, Any], group: str) -> list[str]:
    """The hosts of a group and of the groups in it, each once."""
    found = list(listed.get(group, {}).get("hosts", []))
    for child in listed.get(group, {}).get("children", []):
        found += _members(listed, child)
    return list(dict.fromkeys(found))


def appliance_of(name: str, variables: Mapping[str, Any]) -> Appliance:
    """An appliance by its name and Ansible's variables of it. Raise SettingsError for one that would be less safe than
    the inventory says."""

    def path(variable: str) -> Path | None:
        value = variables.get(variable)
        return Path(str(value)).expanduser() if value else None

    if "ansible_password" in variables or "ansible_ssh_pass" in variables:
        raise SettingsError(f"{name}: a password in the inventory is not used. Log in with a key (ssh-agent).")
    config, known_hosts = _ssh_options(name, variables)
    port = variables.get("ansible_port") or variables.get("ansible_ssh_port")
    return Appliance(
        name,
        str(variables.get("ansible_host") or variables.get("ansible_ssh_host") or name),
        int(port) if port else None,
        variables.get("ansible_user") or variables.get("ansible_ssh_user"),
        path("ansible_ssh_private_key_file") or path("ansible_private_key_file"),
        str(variables.get("pacs_command") or COMMAND),
        config,
        known_hosts,
        str(variables.get("pacs_upload_folder") or Appliance.upload_folder).rstrip("/"),
        str(variables.get("pacs_peer_host") or ""),
        int(variables.get("pacs_peer_port") or Appliance.peer_port),
    )


def _ssh_options(name: str, variables: Mapping[str, Any]) -> tuple[Path | None, Path | None]:
    """`-F` and UserKnownHostsFile of the options that Ansible gives to ssh. Raise SettingsError for any other: what
    is passed over in silence may be what keeps an appliance safe."""
    words = shlex.split(str(variables.get("ansible_ssh_common_args") or ""))
    words += shlex.split(str(variables.get("ansible_ssh_extra_args") or ""))
    config = known_hosts = None
    while words:
        word = words.pop(0)
        value = words.pop(0) if word in ("-F", "-o") and words else ""
        if word == "-F":
            config = Path(value).expanduser()
        elif word == "-o" and value.lower().startswith("userknownhostsfile="):
            known_hosts = Path(value.partition("=")[2]).expanduser()
        else:
            raise SettingsError(
                f"{name}: `pacs fleet` does not know the ssh option {' '.join((word, value)).strip()}. It knows -F and "
                "-o UserKnownHostsFile=; put the others into an ssh_config and name that with -F."
            )
    return config, known_hosts
