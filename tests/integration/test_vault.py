"""An archive, the vault that keeps its backup, and a third machine that is restored from there."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pacs.backup.keys import Keyring, master_key
from pacs.backup.pulled import write_authorized
from pacs.backup.repositories import open_volume, repository_named
from pacs.backup.vaults import VaultFiles
from tests import peer
from tests.faults.process import wait_for
from tests.fix_instance import Dev
from tests.peer import RawObject
from tests.remote.guests_pgbackrest import put_in
from tests.restoring import QUICK, Archive, check_of, contents, given_back, is_whole_again, rows
from tests.synthetic import ct_study
from tests.twins import Node

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]


@dataclass
class Vault:
    """The second appliance: here only what keeps the repository, as nothing else of it takes part."""

    data: Path
    disk: Path
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def files(self) -> VaultFiles:
        return VaultFiles(self.data)

    def pacs(self, *words: str) -> str:
        done = Dev(self.data).pacs("vault", *words, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def start(self) -> None:
        words = [sys.executable, "-m", "pacs.cli.main", "--data", str(self.data), "vault", "run"]
        with (self.data.parent / "vault.log").open("a") as log:
            self.process = subprocess.Popen(words, stderr=log, stdout=log)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture
def vault(twin_folder: Path) -> Iterator[Vault]:
    made = Vault(twin_folder / "vault", twin_folder / "disk")
    made.data.mkdir()
    made.start()
    yield made
    made.kill()


@pytest.fixture(autouse=True)
def guests_pgbackrest(twin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It knows SFTP, this host's may not."""
    put_in(twin_folder / "pgbackrest", monkeypatch)


def _raw(seed: int, count: int = 3) -> list[RawObject]:
    return [RawObject.of(each) for each in ct_study(seed, count)]


@contextmanager
def _machine(folder: Path, name: str) -> Iterator[Node]:
    node = Node.begin(folder, name, **QUICK)
    try:
        yield node
    finally:
        node.end()


def _pair(node: Node, vault: Vault, *words: str) -> str:
    """The texts carried; return the vault's."""
    offer = node.pacs("backup", "repository", "offer", *node.address).strip()
    return vault.pacs("add", "safe", offer, *words)


def _archive(node: Node, vault: Vault) -> Archive:
    """What the helpers for restores know: an archive whose repository `usb` is the vault."""
    answer = _pair(node, vault, "--place", str(vault.disk))
    said = node.pacs("backup", "repository", "add", "usb", "--pulled-by", answer)
    assert "keeps what the appliance removes" in said
    sheet = vault.disk.with_name("sheet.txt")
    sheet.write_text(master_key(node.dev.data).text + "\n")
    return Archive(node.dev, vault.disk / "repository", sheet)


def _level(archive: Archive, seeds: range, vault: Vault) -> dict[str, bytes]:
    """Store studies; wait until the vault has them in a recovery point."""
    sent = [each for seed in seeds for each in _raw(seed)]
    archive.send(sent)
    wait_for(lambda: archive.dev.pacs("backup", "run", check=False).returncode == 0, "no backup", timeout_s=120)
    archive.wait_for_point()
    return {each.sop_instance_uid: each.dataset for each in sent}


def test_a_stolen_appliance_erases_nothing_and_a_third_is_restored(twin_folder: Path, vault: Vault) -> None:
    with ExitStack() as machines:
        first = machines.enter_context(_machine(twin_folder, "first"))
        archive = _archive(first, vault)
        first.pacs("device", "add", "CT room 2", "--ae-title", "CT2", "--host", "127.0.0.1", "--port", "104")
        known = _level(archive, range(1, 4), vault)
        assert check_of(first.dev, "shipping")[0] == "ok"
        assert json.loads(first.pacs("backup", "repository", "list", "--json"))[0]["lag"]["objects"] == 0
        verified = json.loads(first.pacs("backup", "repository", "verify", "--everything", "--json"))["usb"]
        assert all(each["is_well"] for each in verified), verified
        was, good_at = contents(first.dev), datetime.now(UTC)

        # Ransomware has the appliance: all is overwritten here, and by its own keys at the vault as well.
        first.dev.stop()
        _encrypt(first.dev.data, vault)
        assert not any((vault.disk / "repository" / "objects").rglob("*.bin"))
        told = json.loads(vault.pacs("changes", "safe", "--json"))
        assert sum(each["objects"] for each in told) == 2 * len(known)  # overwritten, then removed
        first.sshd.stop()
        shutil.rmtree(first.dev.data)

        # What was good is put back, and a bare machine is restored from it, by the sheet.
        vault.pacs("rewind", "safe", "--to", good_at.isoformat())
        third = machines.enter_context(_machine(twin_folder, "third"))
        answer = _pair(third, vault)
        third.dev.stop()
        words = ["restore", "--pulled-by", answer, "--sheet", str(archive.sheet), "--yes", "--the-old-one-is-gone"]
        said = third.pacs(*words)
        assert f"{len(known)} objects" in said
        third.dev.start()
        assert given_back(third.dev, [each for seed in range(1, 4) for each in _raw(seed)]) == known
        wait_for(lambda: is_whole_again(third.dev), "it does not become whole", timeout_s=120)
        assert contents(third.dev) == was
        # It is the owner now: what comes is in the vault within seconds.
        again = Archive(third.dev, archive.repository, archive.sheet)
        again.send(_raw(9))
        again.wait_for_point()
        assert len(list((vault.disk / "repository" / "objects").rglob("*.bin"))) == len(known) + 3


def _encrypt(data: Path, vault: Vault) -> None:
    """With all that the appliance has: each file of the repository overwritten, then removed."""
    write_authorized(data)
    repository = repository_named(data, "usb")
    with closing(open_volume(repository, Keyring.open(data))) as volume:
        paths = [each.path for each in volume.walk()]
        assert paths
        for path in paths:
            volume.inner.put(path, [random.Random(1).randbytes(100)], 100)
            volume.inner.remove(path)
        for path in ("repository.json", "keyring.json.bin", "volume.json"):
            volume.inner.put(path, [b"PAY"], 3)


@pytest.mark.parametrize("seed", range(int(os.environ.get("PACS_VAULT_KILLS", "3"))))
def test_either_is_killed_at_any_moment_and_nothing_is_half_there(twin_folder: Path, vault: Vault, seed: int) -> None:
    chance = random.Random(seed)
    with _machine(twin_folder, "first") as first:
        archive = _archive(first, vault)
        for study in range(1, 6):
            assert set(peer.store(first.dev.dicom_port, _raw(study, 8))) == {0x0000}
            if study % 2:
                wait_for(lambda n=8 * study: _shipped(first) > chance.randrange(n), "nothing is shipped", timeout_s=60)
            vault.kill()
            if chance.random() < 0.4:
                first.dev.kill_all()
                first.dev.start(timeout_s=240)
            vault.start()
        wait_for(lambda: _shipped(first) == 40, "not all is shipped", timeout_s=240)
        verified = json.loads(first.pacs("backup", "repository", "verify", "--everything", "--json"))["usb"]
        assert all(each["is_well"] for each in verified), verified
        assert len(list((archive.repository / "objects").rglob("*.bin"))) == 40


def _shipped(node: Node) -> int:
    counted = "SELECT count(*) AS number FROM copy JOIN volume USING (volume_id) WHERE tier = 4 AND copy.state = 'good'"
    return int(rows(node.dev, counted)[0]["number"])
