"""What is measured, with DCMTK's tools as the client of every peer: seconds for a number of instances.

DCMTK's own delayed acknowledgements cap every peer at 20 a second without TCP_NODELAY, so it is set for all.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.peers import DESTINATION_AE, Peer
from tests.dcmtk import dcmtk
from tests.synthetic import SyntheticObject, ct_study

STUDIES = 8
_ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}
_TIMEOUT_S = 600


@dataclass(frozen=True)
class Study:
    """A study of CT images as Part 10 files."""

    study_instance_uid: str
    files: list[Path]


def make_studies(folder: Path, instances: int) -> list[Study]:
    """`instances` CT images of 526 kB in STUDIES studies, the same at every run."""
    studies = []
    for seed in range(1, STUDIES + 1):
        target = folder / f"study{seed}"
        target.mkdir(parents=True)
        objects: list[SyntheticObject] = ct_study(seed, instances // STUDIES, rows=512, columns=512)
        studies.append(Study(objects[0].study_instance_uid, [each.write(target) for each in objects]))
    return studies


def store(peer: Peer, files: Sequence[Path], associations: int) -> float:
    """Send files over a number of associations at once; return the seconds until the last is answered."""
    size = -(-len(files) // associations)
    parts = [files[at : at + size] for at in range(0, len(files), size)]
    begun = time.perf_counter()
    senders = [
        subprocess.Popen(
            [dcmtk("storescu"), "-aet", "BENCH", "-aec", peer.ae_title, "127.0.0.1", str(peer.port), *map(str, part)],
            env=_ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
        for part in parts
    ]  # fmt: skip
    for sender in senders:
        _out, errors = sender.communicate(timeout=_TIMEOUT_S)
        if sender.returncode != 0:
            raise RuntimeError(f"storescu to {peer.name} failed: {errors.decode(errors='replace')[-500:]}")
    return time.perf_counter() - begun


def get(peer: Peer, study: Study, folder: Path) -> float:
    """Fetch a study by C-GET; return the seconds."""
    folder.mkdir()
    seconds = _run(peer, "getscu", "-S", "-k", "0008,0052=STUDY", "-k", f"0020,000d={study.study_instance_uid}",
                   "-od", str(folder))  # fmt: skip
    _require(peer, len(list(folder.iterdir())), len(study.files))
    return seconds


def move(peer: Peer, study: Study, received: Path) -> float:
    """Have a study sent to the destination by C-MOVE; return the seconds. `received` is where it writes."""
    before = len(list(received.iterdir()))
    seconds = _run(peer, "movescu", "-S", "-aem", DESTINATION_AE, "-k", "0008,0052=STUDY",
                   "-k", f"0020,000d={study.study_instance_uid}")  # fmt: skip
    _require(peer, len(list(received.iterdir())) - before, len(study.files))
    return seconds


def find(peer: Peer) -> float:
    """Find all studies, start to end of findscu; return the seconds."""
    return _run(peer, "findscu", "-S", "-k", "0008,0052=STUDY", "-k", "PatientName", "-k", "StudyInstanceUID",
                "-k", "StudyDate", "-k", "ModalitiesInStudy", "-k", "NumberOfStudyRelatedInstances")  # fmt: skip


def _run(peer: Peer, tool: str, *words: str) -> float:
    begun = time.perf_counter()
    done = subprocess.run(
        [dcmtk(tool), "-aet", "BENCH", "-aec", peer.ae_title, "127.0.0.1", str(peer.port), *words],
        env=_ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=_TIMEOUT_S,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"{tool} of {peer.name} failed: {done.stderr.decode(errors='replace')[-500:]}")
    return time.perf_counter() - begun


def _require(peer: Peer, came: int, wanted: int) -> None:
    if came != wanted:
        raise RuntimeError(f"{peer.name} gave {came} of {wanted} objects")
