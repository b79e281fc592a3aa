"""The TLS key, and when a cluster is not made. Making one is tried in the booted container (tests/roles)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pacs.errors import DataTooNew, VolumeError
from pacs.machine.identity import make_cluster, make_tls


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
def test_a_tls_key_is_made_once(tmp_path: Path) -> None:
    folder = tmp_path / "identity/tls"
    (tmp_path / "identity/tls.unfinished").mkdir(parents=True)  # what a loss of power left
    make_tls(folder, "pacs-1")
    key = (folder / "key.pem").read_bytes()
    make_tls(folder, "pacs-2")
    assert (folder / "key.pem").read_bytes() == key
    assert (folder / "key.pem").stat().st_mode & 0o077 == 0
    certificate = str(folder / "certificate.pem")
    command = ["openssl", "x509", "-in", certificate, "-noout", "-subject", "-ext", "subjectAltName"]
    said = subprocess.check_output(command, text=True)
    assert "pacs-1" in said
    assert "DNS:localhost" in said
    assert not (tmp_path / "identity/tls.unfinished").exists()


@pytest.mark.parametrize(("version", "error"), [("18", DataTooNew), ("16", VolumeError)])
def test_no_empty_cluster_takes_the_place_of_another_version(tmp_path: Path, version: str, error: type) -> None:
    (tmp_path / version / "main").mkdir(parents=True)
    with pytest.raises(error, match=f"PostgreSQL {version}"):
        make_cluster(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [version]


def test_a_cluster_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "17/main").mkdir(parents=True)
    make_cluster(tmp_path)
    assert list((tmp_path / "17").iterdir()) == [tmp_path / "17/main"]
