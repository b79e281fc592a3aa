"""Volumes on real NFS and SMB shares: the kernel's NFS server and Samba, mounted by the kernel's own clients."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.remote.root import far_root
from tests.remote.uml import run_in_uml

pytestmark = pytest.mark.long

TRIALS = (
    "a_file_comes_back_and_lies_on_the_server",
    "what_may_receive_does",
    "many_are_put_at_once",
    "the_digest_is_of_what_the_server_has",
    "the_digest_comes_past_a_cache_that_is_wrong",
    "a_file_that_is_removed_leaves_no_ghost",
    "a_share_that_hangs_is_left_and_taken_again",
    "a_server_that_restarts_in_a_put",
    "a_share_that_is_full",
    "a_share_that_is_read_only",
    "a_share_that_is_gone_and_another_in_its_place",
    "a_mount_that_would_lose_writes_is_refused",
    "a_share_that_is_named_once_is_mounted_as_it_must_be",
)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What went wrong in each trial of tests/remote/far_shares.py: nothing, it is hoped."""
    folder = tmp_path_factory.mktemp("uml")
    printed = run_in_uml(Path(far_root()), folder, "python3 -m tests.remote.far_shares", timeout_s=600)
    lines = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    return {line["name"]: line["problem"] for line in lines}


@pytest.mark.parametrize("trial", TRIALS)
@pytest.mark.parametrize("kind", ["nfs", "smb"])
def test_share(outcomes: dict[str, str], kind: str, trial: str) -> None:
    assert outcomes.pop(f"{kind}: {trial}") == ""
