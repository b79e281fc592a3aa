"""When a volume counts as empty: only then it gives way to another set, and only then a claim is done again."""

from __future__ import annotations

from pathlib import Path

import pytest

from pacs.machine.survey import has_data


def write(root: Path, name: str, content: str = "x") -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state volume after its first boot, with tier 1 in it."""
    for name in (
        "volume.json",
        "volumes.json",
        "identity/ssh/ssh_host_ed25519_key",
        "identity/tls/key.pem",
        "postgresql/17/main/PG_VERSION",
        "config/ssh/admin",
        "machine/settings.toml",
        "config/mail.toml",
        "config/mail.password",
        "config/keys/keyring.json",
        "lineage/state.json",
        "tier1/volume.json",
        "tier1/lineage.json",
        "audit/000000000001-2026-11-22.jsonl",
        "tier1/audit/000000000001-2026-11-22.jsonl",
        "lost+found/x",
    ):
        write(tmp_path, name)
    write(tmp_path, "journal/2026-11.jsonl", "")
    write(tmp_path, "config/pacs.toml", 'ae_title = "OVF"\n')
    (tmp_path / "tier1/incoming").mkdir()
    return tmp_path


def test_a_state_volume_after_its_first_boot_is_empty(state: Path) -> None:
    assert not has_data(state, is_state=True)


@pytest.mark.parametrize(
    "name",
    [
        "journal/2026-11.jsonl",
        "config/pacs.toml",
        "config/mail.pem",
        "config/repositories/usb.toml",
        "tier1/objects/1/f.dcm",
        "tier1/incoming/half",
        "anything",
    ],
)
def test_a_state_volume_with_anything_stored_is_not(state: Path, name: str) -> None:
    write(state, name)
    assert has_data(state, is_state=True)


def test_settings_that_a_person_wrote_are_not_thrown_away(state: Path) -> None:
    write(state, "config/pacs.toml", 'ae_title = "OVF"\nsettle_s = 60\n')
    assert has_data(state, is_state=True)


def test_a_tier_after_its_first_boot_is_empty(tmp_path: Path) -> None:
    write(tmp_path, "volume.json")
    write(tmp_path, ".volume.json.0a1b2c3d.tmp")  # a claim was killed between giving it its name and taking this away
    write(tmp_path, "lineage.json")
    write(tmp_path, ".lineage.json.0a1b2c3d.tmp")
    write(tmp_path, "audit/000000000001-2026-11-22.jsonl")
    write(tmp_path, "fixity.json")
    (tmp_path / "objects/1").mkdir(parents=True)
    assert not has_data(tmp_path, is_state=False)


@pytest.mark.parametrize("name", ["objects/1/2026/11/22/k/f.dcm", "identity/x", "volumes.json", "postgresql/x"])
def test_a_tier_with_any_file_is_not(tmp_path: Path, name: str) -> None:
    write(tmp_path, "volume.json")
    write(tmp_path, name)
    assert has_data(tmp_path, is_state=False)
