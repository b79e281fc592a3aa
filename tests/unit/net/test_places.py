"""Places for associations: shared by processes, given back by who ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pacs.net.places import Places

HOLD = """
import sys
from pathlib import Path
from pacs.net.places import Places
places = Places(Path(sys.argv[1]))
print(sum(places.take("CT", 3) is not None for _try in range(int(sys.argv[2]))), flush=True)
sys.stdin.read()
"""


def test_as_many_as_there_are(tmp_path: Path) -> None:
    places = Places(tmp_path / "run" / "lock")
    taken = [places.take("CT", 2), places.take("CT", 2)]
    assert None not in taken and len(set(taken)) == 2
    assert places.take("CT", 2) is None
    assert places.take("MR", 1) is not None, "another's are its own"
    assert taken[0] is not None
    places.give_back(taken[0])
    assert places.take("CT", 2) == taken[0]


def test_processes_share_them_and_give_them_back_when_they_are_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    words = [sys.executable, "-c", HOLD, str(path), "2"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert int(other.stdout.readline()) == 2
        places = Places(path)
        mine = places.take("CT", 3)
        assert mine is not None
        assert places.take("CT", 3) is None
        other.kill()
        other.wait()
        assert places.take("CT", 3) is not None
        assert places.take("CT", 3) is not None
        assert places.take("CT", 3) is None
