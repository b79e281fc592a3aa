"""The vaults of this node at work: each owner is dialled, and served on the socket that the ssh carries to it.

    ours: VaultServer on a Unix socket ◀── ssh -R ── the owner's loopback, port listen_port ◀── the owner's worker

One that is paused, or whose disk is away, is not served. What was put aside long enough ago is purged.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from pacs import clock
from pacs.backup.ssh_process import SshProcess
from pacs.backup.vault_server import VaultServer
from pacs.backup.vaults import Vault, VaultFiles
from pacs.errors import AtWork, PacsError
from pacs.storage.holding import holding

log = logging.getLogger(__name__)

#: How long until an owner that does not answer is dialled again [s]: OpenSSH bars who is refused more often than every
#: five seconds (PerSourcePenalties). How often what is old is looked for [s].
_AGAIN_S, _PURGE_S = 10.0, 3600.0


class Keeping:
    """The vaults at work. For one thread, which must outlive it: call `turn` every second, `close` in the end."""

    def __init__(self, data: Path, runtime: Path) -> None:
        """runtime: where the sockets are."""
        self._files, self._runtime = VaultFiles(data), runtime
        self._served: dict[str, _Served] = {}
        self._purge_at_s, self._told = 0.0, dict[str, str]()

    def turn(self) -> None:
        """Follow what a person has said since, dial whom is not connected, purge."""
        wanted = {each.name: each for each in self._files.vaults() if not each.is_paused}
        for name in [name for name, each in self._served.items() if not each.is_of(wanted.get(name))]:
            self._served.pop(name).close()
        for name, vault in wanted.items():
            try:
                if name not in self._served:
                    self._served[name] = _Served(self._files, vault, self._runtime / f"vault-{name}.sock")
                self._tell(name, self._served[name].turn())
            except (PacsError, OSError) as error:
                self._tell(name, str(error))
        if clock.monotonic_s() >= self._purge_at_s:
            self._purge_at_s = clock.monotonic_s() + _PURGE_S
            self._purge()

    def close(self) -> None:
        """End all."""
        for each in self._served.values():
            each.close()
        self._served.clear()

    def _purge(self) -> None:
        for each in self._files.vaults():
            before = (clock.now() - timedelta(days=each.keep_days)).date()
            with contextlib.suppress(PacsError, OSError):
                if gone := each.open().purge(before):
                    log.info("vault %s: what was put aside on %d days before %s was purged", each.name, gone, before)

    def _tell(self, name: str, why: str) -> None:
        if why and why != self._told.get(name):  # once an outage
            log.error("vault %s: %s", name, why)
        self._told[name] = why


class _Served:
    """One vault, served."""

    def __init__(self, files: VaultFiles, vault: Vault, path: Path) -> None:
        self._files, self._vault, self._dial_at_s = files, vault, 0.0
        self._held = contextlib.ExitStack()
        folder = vault.open()
        self._held.enter_context(holding(folder.place, AtWork(f"Vault {vault.name} is being put back or served.")))
        try:
            self._server = VaultServer(
                folder, path, files.host_key, lambda: files.named(vault.name).keys,
                lambda: files.note_seen(vault.name),
            )  # fmt: skip
            self._server.start()
        except BaseException:
            self._held.close()
            raise
        forward = f"127.0.0.1:{vault.listen_port}:{path}"
        self._ssh = SshProcess(files.login(vault), (), ("-R", forward))

    def is_of(self, wanted: Vault | None) -> bool:
        """Whether it serves this vault as it is wanted now. Keys are asked for at each connection."""
        return wanted is not None and replace(wanted, keys=(), keep_days=0) == replace(
            self._vault, keys=(), keep_days=0
        )

    def turn(self) -> str:
        """See that the owner is dialled; return why it is not connected, empty while it is."""
        if self._ssh.is_running():
            if self._server.is_used():
                self._files.note_seen(self._vault.name)
            return ""
        if clock.monotonic_s() < self._dial_at_s:
            return ""
        why = self._ssh.close()
        self._ssh.start()
        self._dial_at_s = clock.monotonic_s() + _AGAIN_S
        return why

    def close(self) -> None:
        """End it; what its owner was writing is nobody's."""
        self._ssh.close()
        self._server.close()
        self._held.close()
