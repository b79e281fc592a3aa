"""How long the usual worklist queries take, each over a real C-FIND association with a running `pacs dev`.

    python -m tests.bench.query_latency --studies 1000 --studies 100000 --instances 100 [--rounds 50] [--data DIR]

For each size: an instance of its own is filled (fill_index.py), asked, and removed again. Prints p50 and p95 of the
time to the last answer and p50 of the time to the first, and the index's bytes an instance. On a quiet machine only.
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from pydicom.dataset import Dataset
from pynetdicom.dimse_primitives import C_FIND
from pynetdicom.presentation import build_context

from pacs.index.database import Database
from pacs.index.devices import Device
from pacs.net.association import Association, Message
from pacs.net.identifier import encode_identifier
from pacs.net.negotiation import STUDY_ROOT_FIND
from pacs.net.requestor import associate, release
from pacs.settings import Settings
from tests.bench.fill_index import Study, fill, size_bytes
from tests.fix_instance import Dev

Keys = dict[str, str]
_WORKLIST = {
    "PatientName": "", "PatientID": "", "PatientBirthDate": "", "StudyDate": "", "StudyTime": "", "AccessionNumber": "",
    "StudyInstanceUID": "", "StudyDescription": "", "ModalitiesInStudy": "", "NumberOfStudyRelatedInstances": "",
}  # fmt: skip
_SERIES = {"SeriesInstanceUID": "", "Modality": "", "SeriesNumber": "", "NumberOfSeriesRelatedInstances": ""}
_IMAGE = {"SOPInstanceUID": "", "InstanceNumber": "", "SOPClassUID": ""}


def _family(study: Study) -> str:
    return study.patient.name.split("^")[0]


def _week(study: Study) -> str:
    return f"{study.day}-{Study(min(study.number + 280, study.studies - 1), study.studies).day}"


#: Name → the keys of one such query, made for some study of the archive.
QUERIES: dict[str, Callable[[Study], Keys]] = {
    "by PatientID": lambda s: _WORKLIST | {"PatientID": s.patient.patient_id},
    "by name, prefix*": lambda s: _WORKLIST | {"PatientName": f"{_family(s)}*"},
    "by name, *part*": lambda s: _WORKLIST | {"PatientName": f"*{_family(s)[2:]}*"},
    "by name and birth date": lambda s: _WORKLIST | {
        "PatientName": f"{_family(s)[:2]}*", "PatientBirthDate": s.patient.birth_date
    },
    "of the last day": lambda s: _WORKLIST | {"StudyDate": Study(s.studies - 1, s.studies).day},
    "of a week, one modality": lambda s: _WORKLIST | {"StudyDate": _week(s), "ModalitiesInStudy": s.modality},
    "by AccessionNumber": lambda s: _WORKLIST | {"AccessionNumber": s.accession_number},
    "by StudyInstanceUID": lambda s: _WORKLIST | {"StudyInstanceUID": s.uid},
    "nobody's name": lambda s: _WORKLIST | {"PatientName": f"Zzyzx{s.number}*"},
    "series of a study": lambda s: _SERIES | {"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": s.uid},
    "images of a series": lambda s: _IMAGE | {
        "QueryRetrieveLevel": "IMAGE", "StudyInstanceUID": s.uid, "SeriesInstanceUID": s.series_uid(1)
    },
}  # fmt: skip


def ask(assoc: Association, keys: Keys, answers_max: int | None = None) -> tuple[float, float, int]:
    """Ask once: seconds to the first answer and to the last, and how many came. Cancels after answers_max."""
    context = assoc.contexts[0]
    query = Dataset()
    query.SpecificCharacterSet, query.QueryRetrieveLevel = "ISO_IR 192", "STUDY"
    for keyword, value in keys.items():
        setattr(query, keyword, value)
    request = C_FIND()
    request.MessageID, request.Priority, request.AffectedSOPClassUID = 1, 2, STUDY_ROOT_FIND
    request.Identifier = BytesIO(encode_identifier(query, context))
    started, first, count = time.perf_counter(), 0.0, 0
    assoc.send(request, int(context.context_id or 0))
    while True:
        message = assoc.receive()
        assert isinstance(message, Message)
        first = first or time.perf_counter() - started
        if message.primitive.Status not in (0xFF00, 0xFF01):
            assert message.primitive.Status == 0x0000, hex(message.primitive.Status)
            return first, time.perf_counter() - started, count
        count += 1
        if count == answers_max:
            return first, time.perf_counter() - started, count


def measure(dev: Dev, studies: int, rounds: int) -> dict[str, tuple[float, float, float, float]]:
    """Query → p50 and p95 of the time to its last answer, p50 to the first [s], and answers a query."""
    settings = Settings(data=dev.data)
    device = Device("bench", "PACS", "127.0.0.1", dev.dicom_port)
    results = {}
    for name, keys in QUERIES.items():
        rng = random.Random(name)
        assoc = associate(settings, device, [build_context(STUDY_ROOT_FIND, "1.2.840.10008.1.2.1")])
        times = [ask(assoc, keys(Study(rng.randrange(studies), studies))) for _ in range(rounds)]
        release(assoc)
        whole = sorted(total for _first, total, _count in times)
        results[name] = (
            statistics.median(whole), whole[int(0.95 * (len(whole) - 1))],
            statistics.median(first for first, _total, _count in times),
            statistics.mean(count for _first, _total, count in times),
        )  # fmt: skip
    # Everything there is: the first answer counts, then we go away.
    firsts = []
    for _ in range(min(rounds, 10)):
        assoc = associate(settings, device, [build_context(STUDY_ROOT_FIND, "1.2.840.10008.1.2.1")])
        firsts.append(ask(assoc, _WORKLIST, answers_max=1)[0])
        assoc.upper_layer.close()
    results["all studies, first answer"] = (statistics.median(firsts), max(firsts), statistics.median(firsts), 1)
    return results


def run(folder: Path, studies: int, instances: int, rounds: int) -> None:
    """Fill an instance, measure it, print."""
    dev = Dev(folder / f"dev{studies}").start(timeout_s=180)
    try:
        database = Database(f"host={dev.data / 'run'} dbname=pacs user=pacs")
        fill(database, studies, instances)
        sizes = size_bytes(database)
        database.close()
        results = measure(dev, studies, rounds)
    finally:
        dev.stop()
        shutil.rmtree(dev.data, ignore_errors=True)
    print(
        f"{studies} studies of {instances} instances, {sum(sizes.values()) / studies / instances:.0f} bytes an instance"
    )
    print(f"{'query':28}{'p50 ms':>10}{'p95 ms':>10}{'first ms':>10}{'answers':>10}")
    for name, (p50, p95, first, count) in results.items():
        print(f"{name:28}{p50 * 1000:10.1f}{p95 * 1000:10.1f}{first * 1000:10.1f}{count:10.1f}")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, action="append", help="a size; may be given more than once")
    parser.add_argument("--instances", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--data", type=Path, help="a folder with a short path; default: a temporary one")
    arguments = parser.parse_args()
    folder = arguments.data or Path(tempfile.mkdtemp(prefix="pacs-", dir="/tmp"))
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    for studies in arguments.studies or [1000]:
        run(folder, studies, arguments.instances, arguments.rounds)


if __name__ == "__main__":
    main()
