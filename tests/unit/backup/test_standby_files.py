"""What two twins tell one another, and what each keeps of it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from pacs.backup.standby_bundle import BUNDLE, packed, unpack
from pacs.backup.standby_files import OfferedVolume, StandbyFiles, Twin, authorized_line, require_no_standby
from pacs.errors import SettingsError, StandbyError, UsageError

TWIN = Twin(
    "second", "3f0c5f5e-6b0a-4d0e-8f4e-0d5a3c1b2a00", "pacs", "192.0.2.12", 22, "ssh-ed25519 AAAAhost",
    "ssh-ed25519 AAAAkey", "/run/postgresql/.s.PGSQL.5432", "1.0",
    (OfferedVolume("0b5c2f5e-6b0a-4d0e-8f4e-0d5a3c1b2a11", 2, "/srv/pacs/tier 2"),),
)  # fmt: skip


def test_a_pairing_text_comes_back_however_it_was_wrapped_and_a_damaged_one_is_refused() -> None:
    text = TWIN.text()
    assert Twin.of(text) == TWIN
    assert Twin.of(f" {text[:40]}\n  {text[40:]}\n") == TWIN
    other = "A" if text[60] != "A" else "B"
    for damaged in (text[:-8], text[:60] + other + text[61:], "pacs-twin-1:", "ssh-ed25519 AAAA", ""):
        with pytest.raises(UsageError, match="no pairing text"):
            Twin.of(damaged)


def test_a_twins_volume_is_one_of_tier_5_at_its_place_for_the_tier_that_it_has_there() -> None:
    row = TWIN.row(TWIN.volumes[0])
    assert (row.tier, row.role, row.kind) == (5, "tier2", "sftp")
    assert row.location == "sftp://pacs@192.0.2.12:22/srv/pacs/tier%202"
    assert row.options["host_key"] == TWIN.host_key


def test_the_twins_key_may_reach_files_and_one_socket_and_nothing_else() -> None:
    line = authorized_line("ssh-ed25519 AAAAkey", "/run/postgresql/.s.PGSQL.5432")
    assert line.startswith('restrict,port-forwarding,permitopen="[/run/postgresql/.s.PGSQL.5432]:*",permitlisten=')
    assert 'command="internal-sftp' in line
    for crooked in ("ssh-ed25519", 'command="sh" ssh-ed25519 AAAA', "ssh-ed25519;x AAAA", 'ssh-ed25519 AA"AA'):
        with pytest.raises(UsageError):
            authorized_line(crooked, "/run/x")
    with pytest.raises(SettingsError):
        authorized_line("ssh-ed25519 AAAAkey", '/run/x]:*",permitopen="*:*')


def test_a_key_is_made_once_and_is_its_owners_and_a_twin_is_known_until_it_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    files = StandbyFiles(tmp_path)
    assert files.twin() is None and files.following() is None
    key = files.public_key()
    assert StandbyFiles(tmp_path).public_key() == key
    files.note_database("/run/postgresql/.s.PGSQL.5432")
    files.keep(TWIN, "standby")
    assert files.twin() == (TWIN, "standby")
    for path in (files.key, files.credentials):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    require_no_standby(tmp_path)
    files.put_following("follows")
    with pytest.raises(StandbyError, match="promote"):
        require_no_standby(tmp_path)
    files.end_following()
    files.forget()
    assert files.twin() is None and not (tmp_path / "standby" / "authorized_keys").exists()
    assert files.public_key() == key


def test_settings_keys_and_journal_come_over_and_what_is_one_nodes_own_does_not(tmp_path: Path) -> None:
    ours, theirs, volume = tmp_path / "ours", tmp_path / "theirs", tmp_path / "volume"
    _write(ours, {"config/pacs.toml": "a", "config/keys/keyring.json": "k", "journal/2026-11.jsonl": "{}",
                  "identity/dicom-tls/key.pem": "tls", "identity/ssh/host": "ours", "config/standby/twin.json": "{}",
                  "config/outbound-held": ""})  # fmt: skip
    _write(theirs, {"config/pacs.toml": "b", "journal/2026-10.jsonl": "{}", "identity/ssh/host": "theirs"})
    (ours / "config/keys/keyring.json").chmod(0o600)
    (volume / BUNDLE).parent.mkdir(parents=True)
    (volume / BUNDLE).write_bytes(packed(ours))
    assert unpack(theirs, volume) == []
    assert unpack(theirs, volume) == []  # once more does the same
    found = {str(path.relative_to(theirs)): path.read_text() for path in theirs.rglob("*") if path.is_file()}
    assert found == {
        "config/pacs.toml": "a", "config/keys/keyring.json": "k", "journal/2026-11.jsonl": "{}",
        "identity/dicom-tls/key.pem": "tls", "identity/ssh/host": "theirs",
    }  # fmt: skip
    assert stat.S_IMODE((theirs / "config/keys/keyring.json").stat().st_mode) == 0o600
    (volume / BUNDLE).write_bytes(packed(ours)[:700])
    with pytest.raises(StandbyError):
        unpack(theirs, volume)


def _write(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
