"""Settings on their way to volumes that are claimed anew, encrypted."""

from __future__ import annotations

from pathlib import Path

from pacs.machine import encrypting, kept_settings
from pacs.machine.kept_settings import Kept


def test_what_was_set_is_carried_over_and_keys_are_not(tmp_path: Path) -> None:
    old, new, carried = tmp_path / "old", tmp_path / "new", tmp_path / "var/carried.tar"
    kept_settings.save(old, Kept(values={"encrypt_volumes": "tpm", "host_name": "pacs.example"}))
    for name in ("config/ssh/admin", "config/pacs.toml", "config/keys/sheet.key", "identity/tls/key.pem"):
        (old / name).parent.mkdir(parents=True, exist_ok=True)
        (old / name).write_text(name)
    (old / "config/pacs.toml").chmod(0o640)
    encrypting.carry(old, "tpm", carried)
    assert carried.stat().st_mode & 0o777 == 0o600
    (new / "config").mkdir(parents=True)
    encrypting.put_back(new, carried)
    assert kept_settings.load(new).values["host_name"] == "pacs.example"
    assert (new / "config/ssh/admin").read_text() == "config/ssh/admin"
    assert (new / "config/pacs.toml").stat().st_mode & 0o777 == 0o640
    assert not (new / "config/keys").exists()
    assert not (new / "identity").exists()
    assert not carried.exists()
    encrypting.put_back(new, carried)


def test_the_tpm_is_left_as_it_is_where_nothing_is_said(tmp_path: Path) -> None:
    kept_settings.save(tmp_path, Kept(values={"encrypt_volumes": "off"}))
    assert encrypting.opened_by_tpm(tmp_path) is None
    kept_settings.save(tmp_path, Kept(values={"encrypt_volumes": "sheet"}))
    assert encrypting.opened_by_tpm(tmp_path) is False
    kept_settings.save(tmp_path, Kept(managed={"encrypt_volumes": "tpm"}))
    assert encrypting.opened_by_tpm(tmp_path) is True
