"""A repository that another appliance keeps, and dials us for: a vault (pacs/backup/vaults.py, docs/operate/vault.md).

Its place is a port on our own loopback, behind which the vault's server is as soon as it has dialled; else it is a
repository on an SFTP server. The vault's key lets it open that port and nothing more. We know no way to the vault.

    DATA/config/pulled/key         what we log in to vaults with
    DATA/standby/pulled_keys       the vaults' keys, for sshd; follows from the repositories
"""

from __future__ import annotations

import contextlib
import random
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pacs import clock
from pacs.archive.volume_places import Given
from pacs.backup import mark
from pacs.backup.repositories import Repository, repositories
from pacs.backup.restore_source import repository_of
from pacs.backup.ssh_process import login_of, make_key, require_key
from pacs.backup.vault_server import USER
from pacs.backup.vaults import Answer, Offer
from pacs.errors import UsageError, VolumeMissing
from pacs.storage import durable
from pacs.storage.sftp_client import host_key_of
from pacs.storage.vault import TOP

#: The ports of which one is taken, any: below those that connections are given, above those of services.
_PORTS = range(20022, 21000)
#: How long a vault may take to dial [s].
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Way:
    """Where a vault comes out here, and by which key it is let in."""

    listen_port: int
    public_key: str

    @property
    def place(self) -> str:
        """As a repository's place."""
        return f"sftp://{USER}@127.0.0.1:{self.listen_port}/{TOP}"

    @property
    def authorized_line(self) -> str:
        """What the vault may when it logs in: have this one port on our loopback. No file, no command, no terminal, and
        nothing of ours is reached through it."""
        port = f'port-forwarding,permitlisten="127.0.0.1:{self.listen_port}",permitopen="127.0.0.1:9"'
        return f'restrict,{port},command="/bin/false" {require_key(self.public_key)} pacs-vault\n'


def make_offer(data: Path, user: str, host: str, port: int) -> Offer:
    """This node as a vault is to know it. Raise VolumeMissing if its SSH server is silent there."""
    host_key, _fingerprint = host_key_of(f"sftp://{user}@{host}:{port}/x", {})
    public_key = make_key(_key(data), "pacs-pulled")
    taken = {way.listen_port for way in _ways(data)}
    return Offer(
        user,
        host,
        port,
        host_key,
        public_key,
        next(each for each in random.sample(_PORTS, len(_PORTS)) if _is_free(each, taken)),
    )


def given_by(data: Path, answer: Answer) -> tuple[str, Given]:
    """The place of a vault's answer, and what is to be said of it."""
    if not _key(data).exists():
        raise UsageError("This node made no offer to a vault. First: pacs backup repository offer --host ADDRESS")
    options = {"host_key": answer.host_key, "pulled_by": answer.public_key, "pulled_from": answer.address}
    return _way(answer).place, Given(options, login_of(_key(data)))


def let_in(data: Path, answer: Answer, patience_s: float = PATIENCE_S) -> None:
    """Let a vault in that is no repository yet, and wait until it has dialled. Raise VolumeMissing if it does not come.

    Afterwards it is let in until `write_authorized`.
    """
    write_authorized(data, _way(answer))
    _wait(answer, patience_s)


def write_authorized(data: Path, extra: Way | None = None) -> None:
    """Let in the vaults that are repositories, or that a restore is made from, and nobody else."""
    ways = dict.fromkeys((*_ways(data), *((extra,) if extra else ())))
    path, content = data / "standby" / "pulled_keys", "".join(each.authorized_line for each in ways).encode()
    with contextlib.suppress(OSError):
        if path.read_bytes() == content:
            return
    if content or path.exists():
        durable.make_folders(path.parent)
        durable.replace_file(path, content, 0o600)


def vaults_of(data: Path) -> list[tuple[Repository, str]]:
    """The repositories that vaults keep, each with the address that its vault calls from."""
    return [(each, str(each.options.get("pulled_from", ""))) for each in repositories(data) if is_pulled(each)]


def is_pulled(repository: Repository) -> bool:
    """Whether a vault keeps it."""
    return "pulled_by" in repository.options


def _ways(data: Path) -> list[Way]:
    begun = mark.begun(data)
    known = [*repositories(data), *([repository_of(begun.repository)] if begun else [])]
    return [Way(urlsplit(each.place).port or 0, str(each.options["pulled_by"])) for each in known if is_pulled(each)]


def _way(answer: Answer) -> Way:
    return Way(answer.listen_port, answer.public_key)


def _wait(answer: Answer, patience_s: float) -> None:
    ends_s = clock.monotonic_s() + patience_s
    while True:
        try:
            shown, _fingerprint = host_key_of(_way(answer).place, {})
        except VolumeMissing:
            if clock.monotonic_s() > ends_s:
                raise VolumeMissing(
                    f"{answer.name} has not dialled this node. Is `pacs vault list` there well, and may "
                    f"{answer.address} reach this node's SSH server?"
                ) from None
            time.sleep(0.5)
            continue
        if shown != answer.host_key:
            raise VolumeMissing(
                f"Port {answer.listen_port} of this node is not the vault's: it shows another host key."
            )
        return


def _is_free(port: int, taken: set[int]) -> bool:
    if port in taken:
        return False
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False


def _key(data: Path) -> Path:
    return data / "config" / "pulled" / "key"
