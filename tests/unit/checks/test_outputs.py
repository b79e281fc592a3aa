"""The checks for machines that watch: Nagios' plug-in output, Prometheus' histograms, the reference and its page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pacs.archive.store import Arrival
from pacs.checks import nagios, silence
from pacs.checks.check import PAGE, Figure, Result, Subject, not_looked, worst
from pacs.checks.exposition import Histograms, Metric, render
from pacs.checks.metrics import text_of
from pacs.checks.reference import table
from pacs.checks.registry import CHECKS, GROUND, look
from pacs.cli.instance import Instance
from pacs.errors import NotFound
from pacs.index import growth
from pacs.index.devices import Device
from pacs.model.histogram import Histogram
from pacs.net.receive_times import ReceiveTimes, receive_times
from tests.synthetic import ct_study

ROOT = Path(__file__).parents[3]
#: Monitoring Plugins Development Guidelines, "Performance data".
_PERFDATA = re.compile(r"'[^'=]+'=-?[\d.]+(e[+-]?\d+)?(%|s|B)?(;[\d.:]*){0,4}")


def test_nagios() -> None:
    figures = (Figure("offset_seconds", -0.25, 0.5, 30), Figure("available_percent", 4, 10, 5), Figure("n", 3))
    well, bad = Result("time", "ok", "fine | so far", "", figures), Result("room", "critical", "full", "Enlarge it.")
    assert nagios.render([well]) == (
        "PACS OK - time: fine / so far | 'time_offset_seconds'=-0.25s;0.5;30 "
        "'time_available_percent'=4%;10:;5: 'time_n'=3\n"
    )
    first, *rest = nagios.render([well, bad]).splitlines()
    assert first.startswith("PACS CRITICAL - room: full | ")
    assert all(_PERFDATA.fullmatch(each) for each in first.partition(" | ")[2].split(" "))
    assert rest[1] == f"CRITICAL room: full -> Enlarge it. See {PAGE}#room"
    assert nagios.render([well, well]).startswith("PACS OK - 2 checks are well | ")
    unknown = not_looked("room")
    assert nagios.EXIT_CODES[worst([well, unknown])] == 3 and nagios.EXIT_CODES[worst([bad, unknown])] == 2


def test_a_histogram_in_prometheus_format() -> None:
    counted = Histogram((0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7):
        counted.observe(value)
    text = render([Histograms("x_seconds", "Words.", [({"who": 'a"b'}, counted)]), Metric("none", "gauge", "", [])])
    assert text.splitlines() == [
        "# HELP x_seconds Words.",
        "# TYPE x_seconds histogram",
        'x_seconds_bucket{who="a\\"b",le="0.1"} 2',
        'x_seconds_bucket{who="a\\"b",le="1"} 3',
        'x_seconds_bucket{who="a\\"b",le="+Inf"} 4',
        'x_seconds_sum{who="a\\"b"} 7.65',
        'x_seconds_count{who="a\\"b"} 4',
    ]


def test_receivers_count_each_for_itself(tmp_path: Path) -> None:
    one, other = ReceiveTimes(tmp_path), ReceiveTimes(tmp_path)
    for each in (one, other):
        each.start()
    one.note(0.02, True)
    one.note(70, False)
    other.note(0.2, True)
    for each in (one, other):
        each.stop()
    found = receive_times(tmp_path)
    assert set(found) == {"1", "2"}
    assert found["1"]["stored"].cumulative[-1] == found["2"]["stored"].cumulative[-1] == 1
    assert found["1"]["refused"].counts[-1] == 1 and found["1"]["refused"].total == 70
    again = ReceiveTimes(tmp_path)
    again.start()
    again.stop()
    assert receive_times(tmp_path)["1"]["stored"].cumulative[-1] == 0, "a new one begins anew"
    (tmp_path / "measured" / "receiver-1.json").write_text('{"stored": {"counts": [1], "total": 1}}')
    assert set(receive_times(tmp_path)) == {"2"}


def test_what_arrived_is_counted_by_sender_and_size(instance: Instance) -> None:
    subject = Subject(instance.settings, instance.database, instance.volumes)
    assert "no known device has sent yet" in silence.run(subject).message
    store = instance.store()
    made = ct_study(1, 3, 8, 8)
    for each in made:
        arrival = Arrival(each.dataset, each.sop_class_uid, each.sop_instance_uid, each.transfer_syntax_uid)
        assert store.store(arrival) == "stored"
    with instance.database.transaction() as connection:
        connection.execute(
            "INSERT INTO association (session_key, calling_ae, peer, closed_at) VALUES (1, 'CT_1', '192.0.2.1', now())"
        )
        connection.execute("UPDATE object SET association_key = (SELECT max(association_key) FROM association)")
    assert growth.count_arrivals(instance.database, settled_s=-60) == 3
    assert [row["objects"] for row in growth.arrival_sizes(instance.database)] == [3]
    assert list(growth.sending(instance.database, 0)) == ["CT_1"]
    text = text_of(subject, look(subject))
    assert 'pacs_received_bytes_bucket{le="16384"} 3' in text and "pacs_received_bytes_count 3" in text
    assert 'pacs_check_figure{check="silence",figure="silent_devices"} 0' in text
    _busy_until_three_weeks_ago(instance)
    result = silence.run(subject)
    assert result.severity == "warning" and result.message.startswith("gone silent: ct1 (since ")


def _busy_until_three_weeks_ago(instance: Instance) -> None:
    device = Device("ct1", "CT_1", "192.0.2.1", 104)
    with instance.database.transaction() as connection:
        connection.execute(
            "INSERT INTO device (name, ae_title, host, port) VALUES (%s, %s, %s, %s)",
            (device.name, device.ae_title, device.host, device.port),
        )
        connection.execute("DELETE FROM sending")
        connection.execute(
            "INSERT INTO sending SELECT 1, 'CT_1', floor(extract(epoch FROM now()) / 10800)::integer - 168 - slot, 1"
            " FROM generate_series(1, 400) slot"
        )


def test_one_check_may_be_asked_for(instance: Instance) -> None:
    subject = Subject(instance.settings, instance.database, instance.volumes)
    assert [each.name for each in look(subject, ["memory", "database"])] == ["database", "memory"]
    with pytest.raises(NotFound, match="There is no check nonsense"):
        look(subject, ["nonsense"])


def test_every_check_is_explained_and_in_the_reference() -> None:
    page = (ROOT / PAGE).read_text()
    headings = re.findall(r"^### (.+)$", page, re.MULTILINE)
    assert set(headings) == {*CHECKS, "instance", "checks"}
    assert set(GROUND) < set(CHECKS)
    assert (ROOT / "docs" / "reference" / "checks.md").read_text().endswith(table())
