"""`make bench`: this project beside its peers, on the same data with the same client, in turn, in one run.

    python -m tests.bench [--instances 2000] [--rounds 3] [--associations 1,4,16,64]
                          [--peers storescp,storescp-fork,orthanc,pacs] [--write docs/reference/performance.md]

Every measurement of storing begins with an empty archive. Rounds go around the peers, so that a load that comes and
goes falls on all of them. Needs root: the peers run in a Debian 13 root of their own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench import measure, report
from tests.bench.peers import Orthanc, Pacs, Peer, Storescp, debian_root, free_port

PEERS: dict[str, Callable[[], Peer]] = {
    "storescp": Storescp,
    "storescp-fork": lambda: Storescp(fork=True),
    "orthanc": Orthanc,
    "pacs": Pacs,
}


#: What a peer does when it has just started, and the disk with what was there before, is not what is measured.
_REST_S = 4.0
#: What may come back in a round: four studies, twice.
_GIVEN_BACK_BYTES = 4 << 30


def main() -> None:
    """Measure, print, and write the report if asked to."""
    options = _options()
    if os.geteuid() != 0:
        sys.exit("make bench needs root: Orthanc runs in a Debian 13 root of its own (chroot). Try: sudo make bench")
    needed_bytes = options.instances * 600_000 * (len(options.peers) * (len(options.associations) + 1) + 1)
    if shutil.disk_usage("/var/tmp").free < needed_bytes:
        sys.exit(f"make bench needs {needed_bytes / 1e9:.0f} GB in /var/tmp. Make room, or ask for fewer --instances.")
    figures = report.Figures(instances=options.instances, rounds=options.rounds)
    work = Path(tempfile.mkdtemp(prefix="pacs-bench-", dir="/var/tmp"))
    work.chmod(0o755)
    try:
        if "orthanc" in options.peers:
            debian_root()
        studies = measure.make_studies(work / "studies", options.instances)
        for number in range(options.rounds):
            folder = work / f"round{number}"
            folder.mkdir()
            for name in options.peers:
                for associations in options.associations:
                    _measure(PEERS[name](), associations, studies, folder / f"{name}-{associations}", figures)
            # Not after each: a file system without a journal shuns what was just deleted, which costs the next one.
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(figures.table())
    if options.write:
        report.write(options.write, figures)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--instances", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--associations", type=lambda text: [int(word) for word in text.split(",")], default="1,4,16,64"
    )
    parser.add_argument("--peers", type=lambda text: text.split(","), default=",".join(PEERS))
    parser.add_argument("--write", type=Path, help="write the report here")
    return parser.parse_args()


def _measure(
    peer: Peer, associations: int, studies: list[measure.Study], folder: Path, figures: report.Figures
) -> None:
    """One round of one peer: everything is stored; with one association, then given back and found, too."""
    folder.mkdir()
    os.sync()  # what the one before left to the kernel is not this one's to pay for
    with _receiving_folder(folder) as received:
        destination = Storescp(port=free_port())
        destination.start(received / "destination", 0)
        try:
            peer.start(folder, destination.port)
            time.sleep(_REST_S)
            files = [file for study in studies for file in study.files]
            seconds = measure.store(peer, files, associations)
            figures.add("store", associations, peer.name, len(files) / seconds)
            if associations == 1 and not isinstance(peer, Storescp):
                _give_back(peer, studies, received, figures)
        finally:
            peer.stop()
            destination.stop()


@contextmanager
def _receiving_folder(folder: Path) -> Iterator[Path]:
    """Where what is given back goes: into memory where there is room. On the archive's own disk it would be measured
    how fast that takes what getscu and storescp write, which is slower than the faster of the archives gives."""
    in_memory = Path("/dev/shm")
    if not in_memory.is_dir() or shutil.disk_usage(in_memory).free < _GIVEN_BACK_BYTES:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="pacs-bench-", dir=in_memory) as received:
        yield Path(received)


def _give_back(peer: Peer, studies: list[measure.Study], received: Path, figures: report.Figures) -> None:
    for number, study in enumerate(studies[:4]):
        seconds = measure.get(peer, study, received / f"got{number}")
        figures.add("C-GET", 1, peer.name, len(study.files) / seconds)
        seconds = measure.move(peer, study, received / "destination" / "received")
        figures.add("C-MOVE", 1, peer.name, len(study.files) / seconds)
    times = [measure.find(peer) for _ in range(10)]
    figures.add("C-FIND of all studies", 1, peer.name, 1 / statistics.median(times))


if __name__ == "__main__":
    main()
