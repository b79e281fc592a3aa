"""The checks and the figures behind them, for Prometheus.

No name, no UID and no patient's data is among them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from pacs import __version__
from pacs.archive.fixity import fixity
from pacs.backup.repositories import repositories
from pacs.backup.shipping import lag_of
from pacs.backup.standby_status import at_archive
from pacs.backup.standby_volumes import standby_of
from pacs.checks.check import Ground, Result, Subject
from pacs.checks.exposition import Histograms, Metric, render
from pacs.checks.nagios import EXIT_CODES
from pacs.errors import PacsError
from pacs.index.damage import damage_counts
from pacs.index.growth import SIZE_BOUNDS, arrival_sizes
from pacs.index.restores import newest_restore
from pacs.index.runs import newest_run, newest_success, totals
from pacs.model.histogram import Histogram
from pacs.net.receive_times import receive_times

_RUNS = ("scrub", "reconcile", "repair", "backup", "drill", "selftest")


def metrics(subject: Ground | None, results: Iterable[Result]) -> list[Metric | Histograms]:
    """The results of the checks, and what the index knows; without the database what the machine knows, without an
    instance the results only."""
    results = list(results)
    found: list[Metric | Histograms] = [
        Metric("pacs_info", "gauge", "The version that runs.", [({"version": __version__}, 1)]),
        Metric(
            "pacs_check_severity", "gauge", "Outcome of a health check: 0 ok, 1 warning, 2 critical, 3 unknown.",
            [({"check": result.name}, EXIT_CODES[result.severity]) for result in results],
        ),
        Metric(
            "pacs_check_figure", "gauge", "What a health check has measured; the unit stands last in its name.",
            [({"check": each.name, "figure": one.name}, one.value) for each in results for one in each.figures],
        ),
    ]  # fmt: skip
    if subject is not None:
        found += _receiving(subject)
    if isinstance(subject, Subject):
        with contextlib.suppress(PacsError):  # the checks say so
            found += _sizes(subject)
            found += [*_totals(subject), *_damage(subject), *_fixity(subject), *_runs(subject), *_shipping(subject)]
            found += _standby(subject)
            found += [*_drill(subject), *_restore(subject)]
    return found


def _receiving(ground: Ground) -> Iterator[Histograms]:
    yield Histograms(
        "pacs_receive_seconds", "From an object's C-STORE request to its answer.",
        [
            ({"receiver": number, "outcome": outcome}, times)
            for number, found in receive_times(ground.settings.runtime_folder).items()
            for outcome, times in found.items()
        ],
    )  # fmt: skip


def _sizes(subject: Subject) -> Iterator[Histograms]:
    rows = arrival_sizes(subject.database)
    counts = [0] * (len(SIZE_BOUNDS) + 1)
    for row in rows:
        counts[row["size_class"]] = row["objects"]
    counted = Histogram(SIZE_BOUNDS, counts, sum(row["size_bytes"] for row in rows))
    yield Histograms("pacs_received_bytes", "Sizes of the objects that came, as last counted.", [({}, counted)])


def _totals(subject: Subject) -> Iterator[Metric]:
    found = totals(subject.database)
    for name in ("studies", "objects", "conflicts"):
        yield Metric(f"pacs_{name}", "gauge", f"How many {name} there are.", [({}, found[name])])
    yield Metric("pacs_objects_bytes", "gauge", "Bytes of all objects, each counted once.", [({}, found["size_bytes"])])


def _damage(subject: Subject) -> Iterator[Metric]:
    counts = damage_counts(subject.database)
    yield Metric("pacs_copies_lost", "gauge", "Copies that are missing or bad now.", [({}, counts["out_of_service"])])
    yield Metric("pacs_copies_quarantined", "gauge", "Those among them put aside.", [({}, counts["quarantined"])])
    yield Metric("pacs_objects_lost", "gauge", "Objects of which no good copy is left.", [({}, counts["lost"])])
    outcomes = ("repaired", "found_well", "healed", "forgotten")
    yield Metric(
        "pacs_copies_settled_total", "counter", "Copies that were missing or bad, by what became of them.",
        [({"outcome": outcome}, counts[outcome]) for outcome in outcomes],
    )  # fmt: skip


def _fixity(subject: Subject) -> Iterator[Metric]:
    found = fixity(subject.database, subject.volumes, timedelta(days=subject.settings.scrub_period_days))
    for name, words in (
        ("size_bytes", "Bytes of the copies on a volume, as they were last counted."),
        ("copies", "Copies on a volume, as they were last counted."),
        ("due_bytes", "Bytes that are to be read again in the last quarter of their period."),
        ("overdue_copies", "Copies that were not read and compared within the period."),
        ("overdue_bytes", "Their bytes."),
    ):
        samples = [({"volume": each.name}, float(getattr(each, name))) for each in found.volumes]
        yield Metric(f"pacs_scrub_{name}", "gauge", words, samples)
    yield Metric(
        "pacs_scrub_full_pass_timestamp_seconds", "gauge", "Every copy on the volume was read then or later.",
        [({"volume": each.name}, each.since.timestamp()) for each in found.volumes if each.since],
    )  # fmt: skip
    yield Metric("pacs_scrub_share_bytes", "gauge", "How much a day has to read.", [({}, found.share_bytes)])


def _runs(subject: Subject) -> Iterator[Metric]:
    last = {kind: row for kind in _RUNS if (row := newest_run(subject.database, kind))}
    yield Metric(
        "pacs_run_timestamp_seconds", "gauge", "When something that runs by itself last ended.",
        [({"kind": kind}, _seconds(row["finished_at"])) for kind, row in last.items()],
    )  # fmt: skip
    yield Metric(
        "pacs_run_succeeded", "gauge", "Whether it succeeded.",
        [({"kind": kind}, float(row["succeeded"])) for kind, row in last.items()],
    )  # fmt: skip
    reconciled = last.get("reconcile")
    if reconciled:
        yield Metric(
            "pacs_reconcile_found", "gauge", "What the last comparison of files and rows found.",
            [({"what": key}, n) for key, n in reconciled["result"].items() if isinstance(n, int)],
        )  # fmt: skip


def _drill(subject: Subject) -> Iterator[Metric]:
    proven = newest_success(subject.database, "drill")
    if proven is None:
        return
    yield Metric(
        "pacs_proven_restore_timestamp_seconds", "gauge", "When a restore was last proven by a drill.",
        [({}, _seconds(proven["finished_at"]))],
    )  # fmt: skip
    yield Metric(
        "pacs_drill_objects", "gauge", "Objects in the last drill that succeeded: known to it, sampled, that differ.",
        [({"what": what}, float(proven["result"].get(what, 0))) for what in ("known", "sampled", "differ")],
    )  # fmt: skip


def _restore(subject: Subject) -> Iterator[Metric]:
    found = newest_restore(subject.database)
    if found is None:
        return
    for name, words in (("objects", "Objects"), ("bytes", "Bytes")):
        total = found["objects" if name == "objects" else "size_bytes"]
        yield Metric(f"pacs_restore_{name}", "gauge", f"{words} that come back behind a restore.", [({}, total)])
        yield Metric(f"pacs_restore_done_{name}", "gauge", f"{words} that are back.", [({}, found[f"done_{name}"])])


def _shipping(subject: Subject) -> Iterator[Metric]:
    found = {each.name: lag_of(subject.database, each.volume_id) for each in repositories(subject.settings.data)}
    for name, words, figures in (
        ("objects", "Objects that a repository does not have, up to 10,000.", [lag.objects for lag in found.values()]),
        ("lag_seconds", "Age of the oldest of them.", [lag.oldest_s or 0.0 for lag in found.values()]),
        ("absent_seconds", "How long a repository has been away.", [lag.absent_s or 0.0 for lag in found.values()]),
    ):
        samples = [({"repository": each}, float(figure)) for each, figure in zip(found, figures, strict=True)]
        yield Metric(f"pacs_shipping_{name}", "gauge", words, samples)


def _standby(subject: Subject) -> Iterator[Metric]:
    known = standby_of(subject.settings.data)
    if known is None:
        return
    found = at_archive(subject.settings, subject.database, known)
    log = found.log
    for name, words, figure in (
        ("objects", "Objects that the standby does not have, up to 10,000.", found.objects.objects),
        ("lag_seconds", "Age of the oldest of them.", found.objects.oldest_s or 0.0),
        ("is_following", "Whether the standby's database takes the log now.", log is not None and log.is_streaming),
        ("log_bytes", "How much of the log is kept for the standby.", log.kept_bytes if log else 0),
    ):
        yield Metric(f"pacs_standby_{name}", "gauge", words, [({"standby": known.name}, float(figure))])


def text_of(subject: Ground | None, results: Iterable[Result]) -> str:
    """The same as text."""
    return render(metrics(subject, results))


def _seconds(when: datetime) -> float:
    return when.timestamp()
