"""LUKS2 on whole disks: made, opened, closed, their key slots and headers. Runs cryptsetup and systemd's programs.

Each volume has one slot for each way of opening it, told apart by tokens in its header:

    own     a random key in `locks/` on the state volume: opens the volumes beside it, and changes slots
    sheet   the key of the recovery sheet as it is written there: `cryptsetup open` takes it on any Linux
    tpm     state volume only: this machine's TPM, by systemd-cryptenroll, bound to no PCR (docs/decisions/0006)

Keys go through standard input or files in memory, never through arguments.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pacs.backup.master_key import MasterKey
from pacs.errors import VolumeError
from pacs.machine.commands import MachineError, output, run
from pacs.storage import durable

#: Before the data: two copies of the header's text, and room for twelve slots.
OFFSET_BYTES = 4 << 20
_METADATA_BYTES, _SLOTS_BYTES = 64 << 10, 3 << 20
_SECTOR_BYTES = 512
OWN, SHEET, TPM = "pacs-own", "pacs-sheet", "systemd-tpm2"
_MAPPER = Path("/dev/mapper")
_TPM_DEVICE = Path("/dev/tpmrm0")
#: Of volumes that the TPM has opened since the machine was switched on.
_TRIED = Path("/run/pacs-machine/tpm")
_MEMORY = Path("/dev/shm")  # noqa: S108 (memory of root's file, 0600)
_WRONG_KEY = 2
# Keys of 160 and 512 random bits gain nothing from a slow derivation; a person's words would.
_DERIVATION = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")


@dataclass(frozen=True)
class Slots:
    """Which slots of a header are for what. others: put there by hand, and left alone. sheet_id: of which sheet."""

    own: tuple[int, ...] = ()
    sheet: tuple[int, ...] = ()
    tpm: tuple[int, ...] = ()
    others: tuple[int, ...] = ()
    sheet_id: str = ""


def mapped(volume_uuid: str) -> Path:
    """Where a volume is when it is open."""
    return _MAPPER / f"pacs-{volume_uuid}"


def new_key() -> str:
    """An own key: 512 random bits in hexadecimal."""
    return secrets.token_hex(64)


def make(device: str, label: str, volume_uuid: str, own_key: str, sheet: MasterKey) -> None:
    """Make an encrypted volume over whatever is on the device. It is not open then."""
    run(
        "cryptsetup", "luksFormat", "--type", "luks2", "--batch-mode", "--uuid", volume_uuid, "--label", label,
        "--subsystem", "pacs", "--cipher", "aes-xts-plain64", "--key-size", "512", *_DERIVATION,
        "--luks2-metadata-size", str(_METADATA_BYTES), "--luks2-keyslots-size", str(_SLOTS_BYTES),
        "--offset", str(OFFSET_BYTES // _SECTOR_BYTES), "--key-file", "-", device, given=own_key,
    )  # fmt: skip
    _name(device, OWN, (0,))
    add_sheet(device, own_key, sheet)


def open_with(device: str, volume_uuid: str, key: str) -> bool:
    """Open a volume with a key; False if it is the wrong one. Nothing is written to the disk either way."""
    words = ("cryptsetup", "open", "--type", "luks2", "--key-file", "-", device, mapped(volume_uuid).name)
    return run(*words, given=key, accept=(0, _WRONG_KEY)).returncode == 0


def fits(device: str, key: str) -> bool:
    """Whether a key opens a volume, without opening it."""
    words = ("cryptsetup", "open", "--test-passphrase", "--type", "luks2", "--key-file", "-", device)
    return run(*words, given=key, accept=(0, _WRONG_KEY)).returncode == 0


def has_tpm() -> bool:
    """Whether this machine has a TPM that can be asked."""
    return _TPM_DEVICE.exists()


def open_by_tpm(device: str, volume_uuid: str) -> bool:
    """Open a volume by this machine's TPM; False if it has none, or if it is another than that which knows it."""
    if not has_tpm() or not slots(device).tpm:
        return False
    words = ("systemd-cryptsetup", "attach", mapped(volume_uuid).name, device, "-", "tpm2-device=auto,headless=true")
    if run(*words, accept=range(256)).returncode != 0:
        return False
    _TRIED.mkdir(mode=0o755, parents=True, exist_ok=True)
    (_TRIED / volume_uuid).touch()
    return True


def tpm_has_opened(volume_uuid: str) -> bool:
    """Whether this machine's TPM has opened a volume since the machine was switched on."""
    return (_TRIED / volume_uuid).exists()


def close(volume_uuid: str) -> None:
    """Close a volume, if it is open."""
    if mapped(volume_uuid).exists():
        run("cryptsetup", "close", mapped(volume_uuid).name)


def slots(device: str) -> Slots:
    """What the slots of a volume's header are for."""
    header = json.loads(output("cryptsetup", "luksDump", "--dump-json-metadata", device))
    there = {int(number) for number in header["keyslots"]}
    found: dict[str, set[int]] = {OWN: set(), SHEET: set(), TPM: set()}
    sheet_id = ""
    for token in header["tokens"].values():
        if token["type"] in found:
            found[token["type"]] |= {int(number) for number in token["keyslots"]} & there
        if token["type"] == SHEET:
            sheet_id = str(token.get("key_id", ""))
    own, sheet, tpm = (tuple(sorted(found[kind])) for kind in (OWN, SHEET, TPM))
    return Slots(own, sheet, tpm, tuple(sorted(there - {*own, *sheet, *tpm})), sheet_id)


def add_sheet(device: str, own_key: str, sheet: MasterKey) -> None:
    """Let a recovery sheet open a volume, and no earlier one any more. The new slot is there before the old goes."""
    _forget_lost_tokens(device)
    before = slots(device)
    if before.sheet and before.sheet_id == sheet.key_id and fits(device, sheet.text):
        return
    with _in_memory(sheet.text) as new:
        run("cryptsetup", "luksAddKey", "--batch-mode", *_DERIVATION, "--key-file", "-", device, str(new),
            given=own_key)  # fmt: skip
    # Cut short before this, the slot is one of `others`: it opens with the same sheet, and stays.
    added = tuple(sorted(set(slots(device).others) - set(before.others)))
    for number in before.sheet:
        run("cryptsetup", "luksKillSlot", "--batch-mode", "--key-file", "-", device, str(number), given=own_key)
    _forget_lost_tokens(device)
    _name(device, SHEET, added, key_id=sheet.key_id)


def add_own(device: str, other_key: str, own_key: str) -> None:
    """Let a new own key open a volume, and no earlier one any more; with another key that opens it now."""
    before = slots(device)
    with _in_memory(own_key) as new:
        run("cryptsetup", "luksAddKey", "--batch-mode", *_DERIVATION, "--key-file", "-", device, str(new),
            given=other_key)  # fmt: skip
    added = tuple(sorted(set(slots(device).others) - set(before.others)))
    for number in before.own:
        run("cryptsetup", "luksKillSlot", "--batch-mode", "--key-file", "-", device, str(number), given=own_key)
    _forget_lost_tokens(device)
    _name(device, OWN, added)


def add_tpm(device: str, own_key: str) -> None:
    """Let this machine's TPM open a volume, and no other's any more."""
    with _in_memory(own_key) as key:
        run("systemd-cryptenroll", f"--unlock-key-file={key}", "--tpm2-device=auto", "--tpm2-pcrs=",
            "--wipe-slot=tpm2", device)  # fmt: skip


def remove_tpm(device: str) -> None:
    """Let no TPM open a volume any more."""
    run("systemd-cryptenroll", "--wipe-slot=tpm2", device)


def keep_header(device: str, volume_uuid: str, folder: Path) -> None:
    """Keep a copy of a volume's header: with a key that fits, it opens the volume if the one on the disk is lost."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    target, unfinished = header_copy(folder, volume_uuid), folder / f".{volume_uuid}.unfinished"
    unfinished.unlink(missing_ok=True)
    run("cryptsetup", "luksHeaderBackup", "--header-backup-file", str(unfinished), device)
    content = unfinished.read_bytes()
    if not target.exists() or target.read_bytes() != content:
        durable.replace_file(target, content, 0o600)
    unfinished.unlink()


def header_copy(folder: Path, volume_uuid: str) -> Path:
    """Where the copy of a volume's header is kept."""
    return folder / f"{volume_uuid}.luks"


def backing(device: str) -> Path | None:
    """The disk below an open volume; None if the device is a disk itself."""
    if not device.startswith(f"{_MAPPER}/"):
        return None
    number = Path(device).stat().st_rdev
    below = list(Path("/sys/dev/block", f"{os.major(number)}:{os.minor(number)}", "slaves").glob("*"))
    return Path("/dev", below[0].name) if len(below) == 1 else None


def grow(device: str, own_key: str) -> None:
    """Let an open volume fill the disk below it, if that has grown."""
    below = backing(device)
    if below is None:
        return
    room_bytes = int(output("blockdev", "--getsize64", str(below))) - OFFSET_BYTES
    if room_bytes // 4096 > int(output("blockdev", "--getsize64", device)) // 4096:
        run("cryptsetup", "resize", "--key-file", "-", Path(device).name, given=own_key)


def require_programs(with_tpm: bool) -> None:
    """Raise VolumeError if this image cannot encrypt."""
    try:
        run("cryptsetup", "--version")
        if with_tpm:
            run("systemd-cryptenroll", "--version")
    except MachineError as error:
        raise VolumeError(f"This system disk cannot encrypt volumes: {error}") from error


def _name(device: str, kind: str, numbers: tuple[int, ...], **more: str) -> None:
    token = {"type": kind, "keyslots": [str(number) for number in numbers], **more}
    run("cryptsetup", "token", "import", "--json-file", "-", device, given=json.dumps(token))


def _forget_lost_tokens(device: str) -> None:
    """Remove the tokens of ours whose slots are gone."""
    header = json.loads(output("cryptsetup", "luksDump", "--dump-json-metadata", device))
    for number, token in header["tokens"].items():
        if token["type"] in (OWN, SHEET) and not token["keyslots"]:
            run("cryptsetup", "token", "remove", "--token-id", number, device)


@contextlib.contextmanager
def _in_memory(key: str) -> Iterator[Path]:
    """A key in a file that is never on a disk, for programs that take no other."""
    fd, name = tempfile.mkstemp(prefix="pacs-key-", dir=_MEMORY)
    try:
        os.write(fd, key.encode())
        os.close(fd)
        yield Path(name)
    finally:
        Path(name).unlink()
