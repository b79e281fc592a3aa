"""Migrations: each once, whoever starts first; data of a newer version are not touched."""

from __future__ import annotations

import subprocess
import sys
import threading

import psycopg
import pytest

from pacs.errors import DatabaseUnavailable, DataTooNew
from pacs.index import database as index
from pacs.index.database import Database
from tests.unit.index.rows import new_volume, record, store


def applied(conninfo: str) -> list[int]:
    with psycopg.connect(conninfo) as connection:
        return [row[0] for row in connection.execute("SELECT number FROM schema_migration ORDER BY number")]


def test_processes_that_start_at_once_apply_each_migration_once(conninfo: str) -> None:
    program = (
        "import sys; from pacs.index import database as index\n"
        "opened = index.Database(sys.argv[1]); sys.stdin.readline()\n"
        "print(len(index.migrate(opened))); opened.close()"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, conninfo], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]  # fmt: skip
    results = [process.communicate("\n", timeout=60)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sum(map(int, results)) == len(index.known_migrations())
    assert applied(conninfo) == sorted(index.known_migrations())


def test_threads_that_start_at_once_apply_each_migration_once(conninfo: str) -> None:
    databases = [Database(conninfo) for _ in range(4)]
    names: list[str] = []
    threads = [threading.Thread(target=lambda each=each: names.extend(index.migrate(each))) for each in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in databases:
        each.close()
    assert sorted(names) == sorted(name for name, _sql in index.known_migrations().values())


def test_a_second_run_applies_nothing(conninfo: str) -> None:
    database = Database(conninfo)
    assert index.migrate(database)
    assert index.migrate(database) == []
    index.require_current(database)
    database.close()


def test_a_newer_schema_is_refused_and_not_touched(conninfo: str) -> None:
    database = Database(conninfo)
    index.migrate(database)
    with psycopg.connect(conninfo) as connection:
        connection.execute("INSERT INTO schema_migration (number, name) VALUES (999, '0999_future.sql')")
        connection.execute("ALTER TABLE study RENAME TO study_of_the_future")
        connection.execute("DELETE FROM schema_migration WHERE number = 1")  # must not be taken for one to apply
    for ask in (lambda: index.migrate(database), lambda: index.require_current(database)):
        with pytest.raises(DataTooNew):
            ask()
    assert applied(conninfo) == [999]
    database.close()


def test_an_older_schema_is_not_worked_on(conninfo: str) -> None:
    database = Database(conninfo)
    with pytest.raises(DatabaseUnavailable):
        index.require_current(database)
    assert index.migrate(database)
    database.close()


def test_a_migration_that_fails_leaves_nothing_of_itself(conninfo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(conninfo)
    first = index.known_migrations()
    broken = {**first, max(first) + 1: ("9999_broken.sql", "CREATE TABLE half (x int); SELECT 1/0;")}
    monkeypatch.setattr(index, "known_migrations", lambda: broken)
    with pytest.raises(psycopg.errors.DivisionByZero):
        index.migrate(database)
    with psycopg.connect(conninfo) as connection:
        assert connection.execute("SELECT to_regclass('half')").fetchone() == (None,)
    assert applied(conninfo) == sorted(first)
    database.close()


def test_migrations_are_numbered_without_gaps() -> None:
    numbers = sorted(index.known_migrations())
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_database_that_is_not_there_is_said_to_be(tmp_path: object) -> None:
    database = Database(f"host={tmp_path} dbname=pacs user=pacs")
    with pytest.raises(DatabaseUnavailable) as caught, database.transaction():
        raise AssertionError("there is no database")
    assert caught.value.status == 0xA700
    with pytest.raises(DatabaseUnavailable):
        database.autocommit_connection()
    database.close()


def test_a_connection_that_the_server_ended_is_replaced(conninfo: str) -> None:
    """After a restart of PostgreSQL the pool's old connections are dead; the first query must not see that."""
    database = Database(conninfo)
    with database.transaction() as connection:
        pid = connection.info.backend_pid
    with psycopg.connect(conninfo, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s)", (pid,))
    with database.transaction() as connection:
        assert connection.execute("SELECT 1 AS one").fetchone() == {"one": 1}
    with pytest.raises(DatabaseUnavailable), database.transaction() as connection:
        with psycopg.connect(conninfo, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
        connection.execute("SELECT 1")
    database.close()


def test_the_owner_of_a_database_who_is_no_superuser_can_make_the_schema(conninfo: str) -> None:
    """On the appliance the service's role owns its database and no more; extensions must be trusted ones."""
    name = conninfo.rpartition("dbname=")[2]
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS plain")
        connection.execute("CREATE ROLE plain LOGIN")
        connection.execute(f"ALTER DATABASE {name} OWNER TO plain".encode())
    database = Database(conninfo.replace("user=pacs", "user=plain"))
    assert index.migrate(database)
    store(database, new_volume(database), record(patient_name="Müller^Jörg=山田^太郎"))
    index.require_current(database)
    with database.transaction() as plain:
        found = plain.execute("SELECT name_key FROM patient_name WHERE pacs_ascii(name_key) LIKE '%x5c71%'").fetchall()
    assert found == [{"name_key": "山田^太郎^"}]
    database.close()
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("REASSIGN OWNED BY plain TO pacs; DROP OWNED BY plain; DROP ROLE plain")
