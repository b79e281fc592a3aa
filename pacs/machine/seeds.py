"""What whoever made the virtual machine said of it: OVF properties, or a NoCloud seed.

    OVF properties   VMware's guestinfo.ovfEnv, or the ISO transport: ovf-env.xml on a CD. A property is a setting.
    NoCloud          `pacs:` in the seed's cloud-config: a map of settings. cloud-init reads the seed.

Empty, "null" (which ESXi's host client writes for a blank) and missing are one: nothing said. Nothing here checks a
value: that is done once, for all ways in (machine/changing.py).
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from pacs.machine.commands import MachineError, run
from pacs.machine.machine_settings import SETTINGS

log = logging.getLogger(__name__)

#: All that cloud-init knows, its seed's own words among it.
CLOUD_CONFIG = Path("/run/cloud-init/combined-cloud-config.json")
_ENVIRONMENT = "{http://schemas.dmtf.org/ovf/environment/1}"
_SIZE_BYTES_MAX = 1 << 20
_CD_DRIVES = ("sr0", "sr1", "sr2", "sr3")


def said(properties: Mapping[str, Any]) -> dict[str, str]:
    """The settings among what was said, blanks left out. A list counts as its parts; keys are one a line."""
    found = {}
    for name, value in properties.items():
        if isinstance(value, list):
            value = ("\n" if name in SETTINGS and SETTINGS[name].many_lines else ", ").join(map(str, value))
        text = "" if value is None else str(value).strip()
        if name in SETTINGS and text and text.lower() != "null":
            found[name] = text
    return found


def ovf_properties(xml: str) -> dict[str, str]:
    """The properties of an OVF environment (DSP0243 chapter 11). Empty if it is none."""
    if len(xml) > _SIZE_BYTES_MAX:
        return {}
    try:
        root = ElementTree.fromstring(xml.strip())  # noqa: S314 (the hypervisor's own; expat bounds entities)
    except ElementTree.ParseError as error:
        log.warning("the OVF environment cannot be read: %s", error)
        return {}
    found = root.iter(f"{_ENVIRONMENT}Property")
    return {each.get(f"{_ENVIRONMENT}key", ""): each.get(f"{_ENVIRONMENT}value", "") for each in found}


def cloud_properties(path: Path) -> dict[str, Any]:
    """The map `pacs` of a seed's cloud-config, as cloud-init has put it together."""
    try:
        found = json.loads(path.read_text("utf-8")).get("pacs")
    except (OSError, ValueError, AttributeError):
        return {}
    return found if isinstance(found, dict) else {}


def collect(cloud_config: Path = CLOUD_CONFIG) -> dict[str, str]:
    """What the seeds say, as text and not checked. Of several the first that says a thing counts."""
    found: dict[str, str] = {}
    for properties in (cloud_properties(cloud_config), ovf_properties(_guestinfo()), _from_cds(_CD_DRIVES)):
        found = {**said(properties), **found}
    return found


def _guestinfo() -> str:
    if run("systemd-detect-virt", accept=range(256)).stdout.strip() != "vmware":
        return ""
    try:
        return run("vmtoolsd", "--cmd", "info-get guestinfo.ovfEnv", accept=range(256)).stdout
    except MachineError as error:
        log.warning("VMware's guest information cannot be asked for: %s", error)
        return ""


def _from_cds(drives: Iterable[str]) -> dict[str, str]:
    for drive in drives:
        device = Path("/dev", drive)
        if device.is_block_device() and (found := ovf_properties(_read_cd(device))):
            return found
    return {}


def _read_cd(device: Path) -> str:
    """The OVF environment of a CD; empty if it has none."""
    with tempfile.TemporaryDirectory(prefix="pacs-cd-") as folder:
        words = ("mount", "-t", "iso9660", "-o", "ro,nodev,nosuid,noexec", str(device), folder)
        if run(*words, accept=range(256)).returncode != 0:
            return ""
        try:
            return environment_in(Path(folder))
        finally:
            run("umount", folder, accept=range(256))


def environment_in(folder: Path) -> str:
    """The text of ovf-env.xml in a folder, however its name is written; empty if it is not there."""
    for path in sorted(folder.iterdir()):
        if path.name.lower() in ("ovf-env.xml", "ovf_env.xml") and path.stat().st_size <= _SIZE_BYTES_MAX:
            return path.read_text("utf-8", "replace")
    return ""
