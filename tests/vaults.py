"""A vault on loopback: the owner's SSH server, and the vault's end as `pacs vault run` has it."""

from __future__ import annotations

import getpass
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pacs.archive.volume_places import Given
from pacs.backup.pulled import given_by, let_in, make_offer
from pacs.backup.vault_keeping import Keeping
from pacs.backup.vaults import Answer, VaultFiles
from pacs.storage.sftp import SftpVolume, make_at
from tests.twins import NodeServer

NAME = "safe"


@dataclass
class Pair:
    """An owner that is nothing but an SSH server and some keys, and its vault."""

    folder: Path
    answer: Answer
    place: str
    given: Given
    credentials: Path
    sshd: NodeServer
    _stop: threading.Event = field(default_factory=threading.Event)

    @property
    def files(self) -> VaultFiles:
        return VaultFiles(self.folder / "vault")

    @property
    def disk(self) -> Path:
        return self.folder / "disk"

    def volume(self) -> SftpVolume:
        """The vault as its owner has it: a volume, made at the first call."""
        if not (self.disk / "repository" / "volume.json").exists():
            make_at(self.place, self.given.options, self.credentials, "tier4", str(uuid.uuid4()))
        return SftpVolume(self.place, "tier4", {**self.given.options, "timeout_s": 10}, self.credentials)

    @classmethod
    @contextmanager
    def met(cls, folder: Path) -> Iterator[Pair]:
        """The two paired, the vault connected."""
        owner, vault, sshd_root = folder / "owner", folder / "vault", folder / "sshd"
        for each in (owner, vault, sshd_root, folder / "run", folder / "disk"):
            each.mkdir()
        sshd = NodeServer(sshd_root, authorized=owner / "standby" / "authorized_keys")
        sshd.start()
        offer = make_offer(owner, getpass.getuser(), "127.0.0.1", sshd.port)
        answer = VaultFiles(vault).add(NAME, offer.text(), folder / "disk", None, "")
        place, given = given_by(owner, answer)
        credentials = folder / "login.toml"
        credentials.touch(mode=0o600)
        credentials.write_bytes(given.credentials or b"")
        made = cls(folder, answer, place, given, credentials, sshd)
        thread = threading.Thread(target=made._keep)
        thread.start()
        try:
            let_in(owner, answer)
            yield made
        finally:
            made._stop.set()
            thread.join()
            sshd.stop()

    def _keep(self) -> None:
        """What `pacs vault run` does, in this process."""
        keeping = Keeping(self.folder / "vault", self.folder / "run")
        while not self._stop.is_set():
            keeping.turn()
            self._stop.wait(0.1)
        keeping.close()
