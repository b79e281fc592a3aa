"""Host keys and administrators' keys, made with the real ssh-keygen."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pacs.machine.access import KINDS, Keys, fingerprint, make_host_key, merge, prepare

pytestmark = pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="ssh-keygen is not installed")


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "run", tmp_path / "home/authorized_keys", tmp_path / "etc/admin")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


def test_host_keys_outlive_the_system_disk(keys: Keys, state: Path, tmp_path: Path) -> None:
    prepare(keys, state)
    first = fingerprint(keys)
    other = Keys(tmp_path / "another run", keys.seeded, keys.authorized)
    prepare(other, state)
    assert fingerprint(other) == first
    for kind in KINDS:
        private = keys.host_keys / f"ssh_host_{kind}_key"
        assert private.stat().st_mode & 0o777 == 0o600
        public = subprocess.check_output(["ssh-keygen", "-y", "-f", private], text=True).split()[:2]
        assert private.with_name(private.name + ".pub").read_text().split()[:2] == public


def test_without_a_state_volume_there_are_keys_all_the_same(keys: Keys) -> None:
    prepare(keys, None)
    assert fingerprint(keys).startswith("SHA256:")
    assert not keys.authorized.exists()


def test_a_key_cut_short_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "unfinished_ed25519").write_text("half")
    make_host_key(tmp_path / "key", "ed25519")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key", "key.pub"]


def test_a_seeds_keys_outlive_the_system_disk(keys: Keys, state: Path) -> None:
    keys.seeded.parent.mkdir()
    keys.seeded.write_text("# seeded\nssh-ed25519 AAAA one\n")
    prepare(keys, state)
    keys.seeded.unlink()
    keys.authorized.unlink()
    prepare(keys, state)
    assert keys.authorized.read_text() == (state / "config/ssh/admin").read_text() == "ssh-ed25519 AAAA one\n"


@pytest.mark.parametrize(
    ("kept", "seeded", "both"),
    [
        ("", "", ""),
        ("a\n", "", "a\n"),
        ("", "a\n\n# c\n", "a\n"),
        ("a\nb", "b\nc", "a\nb\nc\n"),
    ],
)
def test_merge(kept: str, seeded: str, both: str) -> None:
    assert merge(kept, seeded) == both
