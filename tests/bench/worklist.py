"""The usual worklist queries, asked of this archive and of Orthanc with the same studies in both, in turn.

    python -m tests.bench.worklist [--studies 20000] [--rounds 30] [--write docs/reference/performance.md]

Both are filled by C-STORE, a small image a study, as nothing else fills Orthanc. Needs root, as `make bench` does.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from pydicom.dataset import Dataset
from pynetdicom.presentation import build_context

from pacs.index.devices import Device
from pacs.net.association import Association
from pacs.net.negotiation import STUDY_ROOT_FIND
from pacs.net.requestor import associate, release
from pacs.settings import Settings
from tests.bench import report
from tests.bench.fill_index import Study
from tests.bench.peers import Orthanc, Pacs, Peer, debian_root
from tests.bench.query_latency import QUERIES, ask
from tests.faults.wire import CT, EXPLICIT, Wire
from tests.synthetic import SyntheticObject, ct_dataset, encode

_SENDERS = 4
#: What asks below the study's level names series that these studies don't have.
_ASKED = [name for name in QUERIES if name not in ("series of a study", "images of a series")]


def image_of(study: Study) -> SyntheticObject:
    """A study's only image."""
    ds: Dataset = ct_dataset(study.number, rows=8, columns=8)
    ds.PatientName, ds.PatientID = study.patient.name, study.patient.patient_id
    ds.PatientBirthDate, ds.StudyDate = study.patient.birth_date, study.day
    ds.AccessionNumber, ds.Modality, ds.StudyInstanceUID = study.accession_number, study.modality, study.uid
    return encode(ds)


def fill(peer: Peer, studies: int) -> float:
    """Store all studies; return the seconds."""
    failures: list[str] = []

    def send(first: int) -> None:
        try:
            with Wire(peer.port, timeout_s=300) as wire:
                wire.associate([(CT, EXPLICIT)], calling="BENCH")
                for number in range(first, studies, _SENDERS):
                    image = image_of(Study(number, studies))
                    status = wire.store(CT, image.sop_instance_uid, [image.dataset], number % 65535)
                    assert status == 0, f"status {status}"
        except (AssertionError, OSError) as error:
            failures.append(f"{peer.name}: {error}")

    begun = time.perf_counter()
    threads = [threading.Thread(target=send, args=(number,)) for number in range(_SENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise RuntimeError(failures[0])
    return time.perf_counter() - begun


def compare(peers: list[Peer], studies: int, rounds: int) -> list[str]:
    """The lines of a table: a query, each peer's p50 and p95 [ms], answers, and the ratio of the p95."""
    lines = [
        "| query | "
        + " | ".join(f"{peer.name} p50, p95 [ms]" for peer in peers)
        + " | answers | orthanc ÷ ours, p95 |",
        "|---|" + "---|" * (len(peers) + 2),
    ]
    for name in _ASKED:
        rng, times, counts = random.Random(name), {peer.name: list[float]() for peer in peers}, set[tuple[int, ...]]()
        open_now = [_associate(peer) for peer in peers]
        for _round in range(rounds):
            keys = QUERIES[name](Study(rng.randrange(studies), studies))
            came = []
            for peer, assoc in zip(peers, open_now, strict=True):
                _first, whole_s, count = ask(assoc, keys)
                times[peer.name].append(whole_s * 1000)
                came.append(count)
            counts.add(tuple(came))
        for assoc in open_now:
            release(assoc)
        p95 = {each: sorted(found)[int(0.95 * (rounds - 1))] for each, found in times.items()}
        cells = [f"{statistics.median(found):.1f}, {p95[each]:.1f}" for each, found in times.items()]
        answers = statistics.mean(came[-1] for came in counts)
        differ = "" if all(len(set(came)) == 1 for came in counts) else " (they differ)"
        lines.append(
            f"| {name} | {' | '.join(cells)} | {answers:.0f}{differ} | **{p95['orthanc'] / p95['pacs']:.2f}** |"
        )
        print(lines[-1], flush=True)
    return lines


def _associate(peer: Peer) -> Association:
    device = Device("bench", peer.ae_title, "127.0.0.1", peer.port)
    contexts = [build_context(STUDY_ROOT_FIND, EXPLICIT)]
    return associate(Settings(data=Path("/nonexistent"), ae_title="BENCH"), device, contexts)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=20000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--write", type=Path, help="put the table into this page")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("This needs root, as `make bench` does: Orthanc runs in a Debian 13 root of its own.")
    debian_root()
    work = Path(tempfile.mkdtemp(prefix="pacs-bench-", dir="/var/tmp"))
    work.chmod(0o755)
    peers: list[Peer] = [Orthanc(), Pacs()]
    try:
        for peer in peers:
            (work / peer.name).mkdir()
            peer.start(work / peer.name, 104)
            seconds = fill(peer, options.studies)
            print(f"{peer.name}: {options.studies} studies in {seconds:.0f} s", flush=True)
        lines = compare(peers, options.studies, options.rounds)
    finally:
        for peer in peers:
            peer.stop()
        shutil.rmtree(work, ignore_errors=True)
    if options.write:
        text = f"{options.studies} studies of one image, {options.rounds} rounds. {report.machine()}"
        report.put(options.write, "worklist", text + "\n\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
