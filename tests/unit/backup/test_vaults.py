"""The texts that make an appliance the vault of another, and what each notes of the other."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from pacs.backup.pulled import Way
from pacs.backup.vaults import Answer, Offer, VaultFiles
from pacs.errors import NotFound, UsageError

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKeyKeyKeyKeyKeyKeyKeyKeyKeyKeyKeyKeyKeyKey"
OFFER = Offer("pacs", "127.0.0.1", 22, KEY, KEY, 20022)


def test_a_text_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    text = OFFER.text()
    assert Offer.of(f"  {text[:30]}\n{text[30:]} ") == OFFER
    for broken in (text[:-4], text[:40] + "x" + text[41:], "pacs-twin-1:AAAA", ""):
        with pytest.raises(UsageError, match="pairing text"):
            Offer.of(broken)
    with pytest.raises(UsageError, match="no key"):
        VaultFiles(tmp_path).add("safe", replace(OFFER, public_key="ssh-x y\nz").text(), tmp_path / "disk", None, "")


def test_a_vault_is_noted_changed_and_forgotten(tmp_path: Path) -> None:
    files = VaultFiles(tmp_path)
    answer = files.add("safe", OFFER.text(), tmp_path / "disk", 30, "")
    assert (answer.listen_port, answer.address) == (20022, "127.0.0.1")
    assert Answer.of(answer.text()) == answer
    known = files.named("safe")
    assert (known.keep_days, known.keys, known.host_key) == (30, (KEY,), KEY)
    files.keep(replace(known, is_paused=True))
    assert files.vaults() == [replace(known, is_paused=True)]
    # The same for a machine that is restored from it: another key and place, the same way in.
    other = replace(OFFER, host="localhost", public_key=KEY + "Q", listen_port=20055)
    again = files.add("safe", other.text(), None, None, "192.0.2.1")
    assert (again.listen_port, again.address, again.public_key) == (20022, "192.0.2.1", answer.public_key)
    assert files.named("safe") == replace(known, host="localhost", keys=(KEY, KEY + "Q"))
    with pytest.raises(UsageError, match="To move it"):
        files.add("safe", OFFER.text(), tmp_path / "elsewhere", None, "")
    files.forget("safe")
    assert files.vaults() == [] and (tmp_path / "disk" / "vault.json").exists()
    with pytest.raises(NotFound):
        files.forget("safe")


@pytest.mark.parametrize("name", ["", "A", "../x", "a b", "x" * 33])
def test_a_name_is_a_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="small letters"):
        VaultFiles(tmp_path).add(name, OFFER.text(), tmp_path / "disk", None, "")


def test_a_vaults_key_opens_one_port_and_nothing_else(tmp_path: Path) -> None:
    line = Way(20022, KEY).authorized_line
    assert line.startswith('restrict,port-forwarding,permitlisten="127.0.0.1:20022",permitopen="127.0.0.1:9",command=')
    path = tmp_path / "keys"
    path.write_text(line.replace(KEY, _real_key(tmp_path)))
    assert subprocess.run(["ssh-keygen", "-lf", path], check=False, capture_output=True).returncode == 0


def _real_key(folder: Path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True)
    return " ".join((folder / "key.pub").read_text().split()[:2])
