"""Systems of later versions, made of the built one: nothing is built, booted or mounted for them.

Such a version is another one by its name, knows a migration more, and has the built one's selftest, or one that fails.
debugfs writes it straight into the root file system, a file of its own or inside of a disk's.
"""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

from packer.upgrade import ReleaseKey, pack
from pacs.machine.upgrade_file import open_file
from pacs.model.upgrade import System
from tests.image.filesystem import RootFilesystem, root_filesystem
from tests.image.ova import Imported

VERSION, BROKEN_VERSION, _SCHEMA = "99.1.0", "99.0.0", 9999
#: What the selftest of a broken one says.
WHY = "this version is broken"
_ENVIRONMENT = "/etc/pacs/appliance.env"
_PACKAGE = "/opt/pacs/venv/lib/python3.13/site-packages/pacs"


def later_disk(imported: Imported, folder: Path, is_broken: bool) -> Imported:
    """The import of an OVA of a later version: a system disk of its own, and the same data disks, all blank."""
    folder.mkdir()
    disk = folder / "later.raw"
    subprocess.run(["cp", "--sparse=always", imported.system_disk, disk], check=True)
    _change(root_filesystem(disk), folder, is_broken)
    return replace(imported, system_disk=disk)


def broken_upgrade(upgrade: Path, folder: Path) -> tuple[Path, Path]:
    """An upgrade file of a later version whose selftest fails; and the public key that it is signed with."""
    opened = open_file(upgrade, {"release": bytes.fromhex(upgrade.with_suffix(".pub").read_text().strip())})
    root = folder / "root.raw"
    with root.open("wb") as image:
        image.truncate(opened.manifest.size_bytes)
        for number, content in opened.pieces():
            image.seek(number * opened.manifest.piece_bytes)
            image.write(content)
    _change(RootFilesystem(root, 0), folder, is_broken=True)
    key, target = ReleaseKey(folder / "key", b"3" * 32), folder / "broken.upgrade"
    target.with_suffix(".pub").write_text(key.public + "\n")
    pack(root, target, System(BROKEN_VERSION, _SCHEMA, opened.manifest.postgresql), 0, key)
    root.unlink()
    return target, target.with_suffix(".pub")


def _change(root: RootFilesystem, folder: Path, is_broken: bool) -> None:
    settings = root.read(_ENVIRONMENT).decode().splitlines()
    kept = [line for line in settings if not line.startswith("PACS_APPLIANCE_VERSION=")]
    files = {
        _ENVIRONMENT: "\n".join([*kept, f"PACS_APPLIANCE_VERSION={BROKEN_VERSION if is_broken else VERSION}"]),
        f"{_PACKAGE}/index/migrations/{_SCHEMA}_later.sql": "ALTER TABLE object ADD COLUMN later integer;",
    }
    if is_broken:  # what was compiled of it before is of another size, and not used
        files[f"{_PACKAGE}/cli/selftest.py"] = f"def selftest() -> None:\n    raise SystemExit({WHY!r})"
    root.replace({path: content.encode() + b"\n" for path, content in files.items()}, folder)
