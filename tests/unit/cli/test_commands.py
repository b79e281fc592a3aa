"""Commands: exit codes, messages that say what to do, and JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pacs import __version__
from pacs.archive.store import Arrival
from pacs.backup.mark import MARK
from pacs.cli.instance import open_instance
from pacs.storage.journal import Journal
from tests.synthetic import ct_study
from tests.unit.cli.conftest import Run


def test_version_and_help(run: Run) -> None:
    assert run("version").out.strip() == __version__
    assert run("--help").code == 0
    assert run("device", "--help").code == 0
    assert run("nonsense").code == 2


def test_without_an_instance_a_command_says_how_to_name_one(run: Run, tmp_path: Path) -> None:
    outcome = run("device", "list")
    assert outcome.code == 2
    assert "--data" in outcome.err
    assert "PACS_DATA" in outcome.err
    for words in (["study", "list"], ["reconcile", "run"], ["backup", "run"], ["database", "migrate"]):
        outcome = run("--data", tmp_path / "nowhere", *words)
        assert outcome.code == 5, words
        assert outcome.err.startswith("pacs: ")
        assert str(tmp_path / "nowhere") in outcome.err
        assert "Traceback" not in outcome.err
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("settle_s = 'soon'", "settle_s"),
        ("settle_s = -1", "settle_s"),
        ("no_such_setting = 1", "no_such_setting"),
        ("ae_title = 'MUCH_TOO_LONG_FOR_AN_AE_TITLE'", "ae_title"),
        ("ae_title = ''", "ae_title"),
        ("ae_title = 'BACK\\\\SLASH'", "ae_title"),
        ('ae_title = "TAB\\there"', "ae_title"),
        ("ae_title = '  '", "ae_title"),
        ("extra_transfer_syntaxes = ['not a uid']", "extra_transfer_syntaxes"),
        ("this is no toml", "pacs.toml"),
        (b"ae_title = '\xff\xfe'", "pacs.toml"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(run: Run, tmp_path: Path, content: str | bytes, names: str) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "pacs.toml").write_bytes(content if isinstance(content, bytes) else content.encode())
    outcome = run("--data", tmp_path, "device", "list")
    assert outcome.code == 3
    assert names in outcome.err
    assert str(tmp_path / "config" / "pacs.toml") in outcome.err


def test_a_setting_of_the_environment_that_cannot_be_used_is_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("PACS_EXTRA_TRANSFER_SYNTAXES", "1.2.3"), ("PACS_ASSOCIATIONS_MAX", "many")):
        with monkeypatch.context() as environment:
            environment.setenv(name, value)
            outcome = run("--data", tmp_path, "device", "list")
        assert outcome.code == 3
        assert name.removeprefix("PACS_").lower() in outcome.err


def test_the_environment_stands_above_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pacs.settings import load

    (tmp_path / "config").mkdir()
    content = "ae_title = 'FILE'\nsettle_s = 7\nextra_transfer_syntaxes = ['1.2.3']\n"
    (tmp_path / "config" / "pacs.toml").write_text(content)
    assert (load(tmp_path).ae_title, load(tmp_path).settle_s) == ("FILE", 7)
    assert load(tmp_path).extra_transfer_syntaxes == ("1.2.3",)
    monkeypatch.setenv("PACS_AE_TITLE", "ENV")
    assert (load(tmp_path).ae_title, load(tmp_path).settle_s) == ("ENV", 7)
    assert load(tmp_path, ae_title="GIVEN").ae_title == "GIVEN"


def test_a_database_that_is_down_is_exit_code_4(run: Run, new_instance: Callable[[], Path]) -> None:
    data = new_instance()
    (data / "config" / "pacs.toml").write_text(f'database = "host={data} dbname=pacs user=pacs"\n')
    outcome = run("--data", data, "device", "list")
    assert outcome.code == 4
    assert "database does not answer" in outcome.err
    outcome = run("--data", data, "check", "--json")
    assert outcome.code == 2
    assert json.loads(outcome.out)[0]["severity"] == "critical"


def test_devices(run: Run, new_instance: Callable[[], Path]) -> None:
    data = new_instance()

    def device(*words: object) -> object:
        return run("--data", data, "device", *words)

    def add(name: str, title: str, host: str = "10.0.0.1", port: object = 104) -> object:
        return device("add", name, "--ae-title", title, "--host", host, "--port", port)

    assert json.loads(device("list", "--json").out) == []
    assert add("ct1", "CT_1").code == 0
    assert add("ct1", "OTHER").code == 2  # the name is taken
    assert add("ct2", "CT_1").code == 2  # the AE title is taken
    assert "ct1" in add("ct2", "CT_1").err
    for title in ("", " ", "SEVENTEEN_LETTERS", "BACK\\SLASH", "new\nline", "ÄÖ", " CT", "CT ", "\x1b[2J"):
        outcome = add("bad", title)
        assert outcome.code == 2, title
        assert "AE title" in outcome.err
    for port in (0, 65536, -1, "dicom"):
        assert add("bad", "BAD", port=port).code == 2, port
    for name, host in (("", "h"), (" ", "h"), ("x", ""), ("x", " ")):
        assert add(name, "BAD", host).code == 2
    assert add("name\nwith line", "BAD").code == 2
    (known,) = json.loads(device("list", "--json").out)
    assert (known["name"], known["ae_title"], known["host"], known["port"]) == ("ct1", "CT_1", "10.0.0.1", 104)
    assert "CT_1" in device("list").out
    assert device("remove", "nobody").code == 9
    assert device("remove", "ct1").code == 0
    assert device("remove", "ct1").code == 9
    # What did not happen is not in the journal: a rebuild would bring it about.
    assert [(line["what"], line["name"]) for line in Journal(data).read()] == [
        ("device add", "ct1"),
        ("device remove", "ct1"),
    ]


def test_studies_checks_and_reconciliation(run: Run, new_instance: Callable[[], Path]) -> None:
    data = new_instance()
    with open_instance(data) as instance:
        for made in ct_study(5, 3, 8, 8):
            arrival = Arrival(made.dataset, made.sop_class_uid, made.sop_instance_uid, made.transfer_syntax_uid)
            assert instance.store().store(arrival) == "stored"
    (study,) = json.loads(run("--data", data, "study", "list", "--json").out)
    assert (study["study_instance_uid"], study["objects"], study["tiers"]) == (made.study_instance_uid, 3, "1")
    assert made.study_instance_uid in run("--data", data, "study", "list").out

    outcome = run("--data", data, "check", "--json")
    results = {result["name"]: result for result in json.loads(outcome.out)}
    assert outcome.code == 1  # no backup repository: a warning
    assert results["backup"]["severity"] == "warning"
    assert results["database"]["severity"] == results["volumes"]["severity"] == "ok"
    lines = run("--data", data, "check").out.splitlines()
    assert len(lines) == len(results)
    assert any(line.startswith("WARNING") for line in lines)

    findings = run("--data", data, "reconcile", "run", "--json")
    assert findings.code == 0
    assert json.loads(findings.out)["copies"] == 3
    next((data / "tier1" / "objects").rglob("*.dcm")).unlink()
    outcome = run("--data", data, "reconcile", "run")
    assert outcome.code == 10
    assert "missing or damaged" in outcome.err
    outcome = run("--data", data, "check", "--json")
    assert outcome.code == 2
    assert {r["name"]: r["severity"] for r in json.loads(outcome.out)}["copies"] == "critical"
    assert "Müller" not in outcome.out

    assert run("--data", data, "tier", "move").code == 0
    for words in (["configured"], ["list"], ["status"], ["points"], ["run"]):
        assert run("--data", data, "backup", *words).code == 9, "there is no repository"
    assert run("--data", data, "backup", "run", "--due").code == 0
    for words in (["receiver", "run"], ["web", "run"]):
        outcome = run("--data", data, *words)
        assert outcome.code in (2, 3), words
        assert "Traceback" not in outcome.err


def test_data_of_a_newer_version_are_refused_by_every_command(run: Run, new_instance: Callable[[], Path]) -> None:
    data = new_instance()
    path = data / "volume.json"
    newer = path.read_text().replace('"format": 1', '"format": 2')
    path.write_text(newer)
    for words in (["device", "list"], ["study", "list"], ["database", "migrate"], ["backup", "run"], ["tier", "move"]):
        assert run("--data", data, *words).code == 6, words
    assert path.read_text() == newer
    assert not (data / "tier1").exists()


def test_a_restore_that_did_not_finish_stops_all_else(run: Run, new_instance: Callable[[], Path]) -> None:
    data = new_instance()
    (data / MARK).write_text("x")
    outcome = run("--data", data, "reconcile", "run")
    assert outcome.code == 8
    assert "pacs restore" in outcome.err
