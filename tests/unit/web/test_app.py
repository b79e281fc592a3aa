"""The web pages over a real instance: codes, headers, and nothing of a patient's."""

from __future__ import annotations

import asyncio
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from pacs.archive.store import Arrival
from pacs.checks.check import Subject
from pacs.cli.instance import Instance
from pacs.index.database import Database
from pacs.web.app import make_app
from tests.synthetic import ct_study


def subject_of(instance: Instance) -> Subject:
    return Subject(instance.settings, instance.database, instance.volumes)


class Client:
    """Asks the application as a browser would, without a socket."""

    def __init__(self, subject: Subject) -> None:
        self.app = make_app(subject)

    def get(self, path: str, method: str = "GET") -> httpx.Response:
        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://pacs") as client:
                return await client.request(method, path)

        return asyncio.run(ask())


def client_of(subject: Subject) -> Client:
    return Client(subject)


def test_pages_of_an_instance(instance: Instance) -> None:
    """One instance for all of it, as each takes a database."""
    for made in ct_study(7, 2, 8, 8):
        arrival = Arrival(made.dataset, made.sop_class_uid, made.sop_instance_uid, made.transfer_syntax_uid)
        assert instance.store().store(arrival) == "stored"
    subject = subject_of(instance)
    client = client_of(subject)
    health = client.get("/healthz")
    assert health.status_code == 200
    assert health.json()["status"] == "warning"  # no backup repository
    page = client.get("/")
    assert page.status_code == 200
    for name in ("database", "volumes", "copies", "conflicts", "backup"):
        assert f">{name}</th>" in page.text
    assert ">1</b> studies" in page.text
    assert ">2</b> objects" in page.text
    for secret in ("Müller", "Seed7", "P7", made.study_instance_uid, made.sop_instance_uid, "A00000007", "Thorax"):
        assert secret not in page.text
        assert secret not in health.text
    for answer in (health, page):
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "script" not in answer.text
    assert not re.findall(r'(?:src|href)="?http', page.text), "nothing is fetched from elsewhere"
    assert client.get("/nothing-here").status_code == 404
    assert client.get("/healthz", "POST").status_code == 405

    # a missing file is critical, and so is a volume that is gone
    next((instance.volumes.tier(1)[0].root / "objects").rglob("*.dcm")).unlink()
    from pacs.archive.reconcile import reconcile

    assert not reconcile(instance.database, instance.volumes.all(), 0).is_clean
    assert client.get("/healthz").status_code == 503
    assert "critical" in client.get("/").text
    shutil.rmtree(instance.volumes.tier(2)[0].root)
    page = client.get("/")
    assert page.status_code == 200
    assert "is gone" in page.text


@pytest.fixture
def without_database(instance: Instance, tmp_path: Path) -> Subject:
    """An instance whose PostgreSQL is stopped."""
    database = Database(f"host={tmp_path} dbname=pacs user=pacs")
    return replace(subject_of(instance), database=database)


def test_without_a_database_it_is_503_and_soon(without_database: Subject) -> None:
    """Who watches gives up after 10 seconds, as a rule."""
    client = client_of(without_database)
    started = time.monotonic()
    health = client.get("/healthz")
    assert health.status_code == 503
    assert health.json()["status"] == "critical"
    assert time.monotonic() - started < 8
    page = client.get("/")
    assert page.status_code == 200
    assert "does not answer" in page.text
    assert "studies" not in page.text
    without_database.database.close()


def test_what_a_check_says_is_escaped(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    from pacs.checks import registry
    from pacs.checks.check import Result

    evil: Callable[[Subject], Result] = lambda _subject: Result("x", "ok", "<script>alert(1)</script>", "<b>")  # noqa: E731
    monkeypatch.setitem(registry.CHECKS, "x", evil)
    client = client_of(subject_of(instance))
    assert "<script>" not in client.get("/").text
