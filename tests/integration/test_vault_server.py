"""What an owner can do to its vault, through a real sshd on its side: add and read; and what it cannot."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import paramiko
import pytest

from pacs.backup import vault_keeping
from pacs.backup.vaults import Vault
from pacs.errors import VolumeMissing
from pacs.storage.sftp_client import Client, host_key_of
from tests.faults.process import wait_for
from tests.sftp_server import SSHD
from tests.vaults import NAME, Pair


@pytest.fixture
def pair(short_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    monkeypatch.setattr(vault_keeping, "_AGAIN_S", 0.5)
    if not SSHD.exists():
        pytest.skip("Debian's openssh-server is not installed: requirements/debian-test.txt")
    folder = short_folder / tmp_path.name[-20:]
    folder.mkdir()
    with Pair.met(folder) as met:
        yield met


def _kept(pair: Pair) -> list[bytes]:
    return sorted(each.read_bytes() for each in (pair.disk / "kept").rglob("*@*") if each.suffix != ".gone")


def test_it_is_a_volume_and_what_is_taken_away_is_kept(pair: Pair) -> None:
    content = os.urandom(300_000)
    with closing(pair.volume()) as volume:
        assert volume.put("objects/aa/1", [content], len(content)) == hashlib.sha256(content).digest()
        assert volume.digest_on_disk("objects/aa/1") == hashlib.sha256(content).digest()
        assert volume.read_piece("objects/aa/1", 1000, 5) == (content[1000:1005], 300_000)
        assert [each.path for each in volume.walk()] == ["objects/aa/1"]
        assert volume.room().free_bytes
        assert _kept(pair) == []
        volume.replace_small("lineage.json", b"1")
        volume.replace_small("lineage.json", b"2")
        assert volume.read_small("lineage.json") == b"2"
        assert _kept(pair) == [b"1"]
        volume.quarantine("objects/aa/1")
        volume.put("objects/aa/1", [b"other"], 5)
        volume.remove("objects/aa/1")
        assert not volume.has("objects/aa/1")
    assert _kept(pair) == sorted([b"1", content, b"other"])
    assert (pair.disk / "repository" / "incoming").is_dir() and not any((pair.disk / "repository/incoming").iterdir())
    assert pair.files.seen_at_s(NAME) is not None


def test_a_thief_with_the_owners_keys_can_erase_nothing(pair: Pair) -> None:
    with closing(pair.volume()) as volume:
        volume.put("objects/aa/1", [b"an image"], 8)
    client = Client(pair.place, pair.given.options, pair.credentials)
    with closing(client):
        with client.session() as session:
            with pytest.raises(OSError), session.open("/repository/objects/aa/1", "r+") as file:
                file.write(b"PAY")
            with pytest.raises(OSError):
                session.truncate("/repository/objects/aa/1", 0)
            session.utime("/repository/objects/aa/1", (0, 0))
            with pytest.raises(OSError):
                session.rename("/repository/objects", "/repository/away")
            with pytest.raises(OSError):
                session.symlink("/etc/passwd", "/repository/link")
            with pytest.raises(OSError):
                session.listdir("/kept")
            with pytest.raises(OSError):
                session.open("/repository/../vault.json")
            with pytest.raises(OSError):
                session.rmdir("/repository")
        with client.session() as session:
            with session.open("/repository/objects/aa/1", "wb") as file:
                file.write(b"PAY")
            session.remove("/repository/objects/aa/1")
            session.rmdir("/repository/objects/aa")
        transport = client._transport
        assert transport is not None
        for asked in ("exec", "shell", "pty", "forward"):
            with pytest.raises(paramiko.SSHException):
                _ask(transport, asked)
    assert _kept(pair) == [b"an image"]  # the file that took its place was the session's own, begun and given up


def _ask(transport: paramiko.Transport, what: str) -> None:
    if what == "forward":
        transport.open_channel("direct-tcpip", ("127.0.0.1", 22), ("127.0.0.1", 1), timeout=10)
        return
    channel = transport.open_session(timeout=10)
    if what == "exec":
        channel.exec_command("true")
    elif what == "shell":
        channel.invoke_shell()
    else:
        channel.get_pty()


def test_nobody_else_comes_in_and_the_vault_comes_to_nothing_of_the_owner(pair: Pair) -> None:
    stranger = pair.folder / "stranger.toml"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(pair.folder / "stranger")], check=True
    )  # fmt: skip
    stranger.touch(mode=0o600)
    stranger.write_text(f'private_key = """\n{(pair.folder / "stranger").read_text()}"""\n')
    with (
        closing(Client(pair.place, pair.given.options, stranger)) as client,
        pytest.raises(VolumeMissing, match="login"),
        client.session(),
    ):
        pytest.fail("a stranger is in")
    # The vault's key opens one port there: no file, no command, no other port, no way into the owner's network.
    login = pair.files.login(pair.files.named(NAME))
    for words in (["true"], ["-s", "sftp"], ["-N", "-R", "127.0.0.1:20099:127.0.0.1:9"], ["-W", "127.0.0.1:22"]):
        *start, server = login.words("ExitOnForwardFailure=yes", "ConnectionAttempts=1")
        rest = [server, *words] if words[0] != "-N" and words[0] != "-W" else [*words, server]
        done = subprocess.run([*start, *rest], capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
        assert done.returncode != 0, (words, done.stdout, done.stderr)


def test_it_comes_again_after_either_was_away_and_not_while_it_is_paused(pair: Pair) -> None:
    with closing(pair.volume()) as volume:
        volume.put("objects/aa/1", [b"an image"], 8)
        pair.sshd.stop()
        with pytest.raises(VolumeMissing):
            volume.size_of("objects/aa/1")
        pair.sshd.start()
        wait_for(lambda: _answers(pair), "it is not dialled again", timeout_s=30)
        assert volume.read_small("objects/aa/1") == b"an image"
        pair.files.keep(_paused(pair, True))
        wait_for(lambda: not _answers(pair), "it is served though paused", timeout_s=30)
        pair.files.keep(_paused(pair, False))
        wait_for(lambda: _answers(pair), "it is not dialled again", timeout_s=30)


def _paused(pair: Pair, is_paused: bool) -> Vault:
    return replace(pair.files.named(NAME), is_paused=is_paused)


def _answers(pair: Pair) -> bool:
    try:
        return host_key_of(pair.place, {})[0] == pair.answer.host_key
    except VolumeMissing:
        return False
