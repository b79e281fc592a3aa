"""Whether what a repository has of the database is whole: every backup, and the log that each of them needs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from pacs.backup.cluster_backup import backups, labels_of
from pacs.backup.configuration import Configuration
from pacs.backup.log_shipping import ShippedLog
from pacs.backup.log_spool import LogSpool
from pacs.backup.pgbackrest import STANZA, PgBackRest, config_file
from pacs.backup.repositories import Repository
from pacs.errors import PacsError
from pacs.storage.keyring import Keyring
from pacs.storage.probing import Finding

_SEGMENTS_PER_FILE_NUMBER = 256  # of 16 MB, which is what initdb makes
_SEGMENT = re.compile(r"([0-9A-F]{24})-[0-9a-f]{40}")
_COUNTED = re.compile(r"(missing|checksum invalid|size invalid|other): (\d+)")


def look_at(data: Path, repository: Repository, keyring: Keyring) -> list[Finding]:
    """Read all that a repository has of the database and of the configuration, and say how it is."""
    state = ShippedLog(LogSpool(data), repository.name).read()
    configuration = Configuration(repository, keyring, config_file(data, "any").parent)
    return [
        _finding("database", lambda: _verified_database(data, repository.name, state.label)),
        _finding("configuration", lambda: _verified_configuration(configuration, state.configuration)),
    ]


def _verified_database(data: Path, name: str, newest: str | None) -> list[str] | None:
    """None: there is no backup yet. newest: the label of the last one that was made, as far as we know."""
    labels = [each.label for each in backups(data, name)] if config_file(data, name).exists() else []
    if newest is None and not labels:
        return None
    if newest is not None and newest not in labels:
        return [f"backup {newest} is gone: `pacs backup run {name}` makes one"]
    return verify(data, name)


def _verified_configuration(configuration: Configuration, newest: str | None) -> list[str] | None:
    if newest is None and not configuration.is_begun():
        return None
    configuration.verify()
    return []


def _finding(what: str, look: Callable[[], list[str] | None]) -> Finding:
    try:
        wrong = look()
    except PacsError as error:
        return Finding(what, False, str(error))
    if wrong is None:
        return Finding(what, True, "no backup yet; the worker makes one")
    return Finding(what, not wrong, "; ".join(wrong) if wrong else "all of it read, and whole")


def verify(data: Path, name: str) -> list[str]:
    """Read all backups and all log of a repository, compare checksums, and look for log that is missing; return what
    is wrong, in words.

    Log that was dropped before the newest backup began is none of it: no point stands on it. This takes as long as
    reading the repository takes. Raise BackupError if it cannot be read.
    """
    tool = PgBackRest(config_file(data, name))
    text = tool.run("verify", "--output=text", "--verbose", "--log-level-console=error")
    wrong = [" ".join(line.split()) for line in text.splitlines() if _is_wrong(line)]
    wrong += [f"backup {label} is gone: it has no manifest" for label in without_manifest(tool)]
    return [*wrong, *(f"segment {segment} of the log is missing" for segment in missing_log(tool))]


def _is_wrong(line: str) -> bool:
    counted = _COUNTED.search(line)
    return bool(counted and int(counted[2])) or any(
        words in line for words in ("ERROR", "status: invalid", "status: error")
    )


def without_manifest(tool: PgBackRest) -> list[str]:
    """The backups that are listed and are not there: pgBackRest verifies those that it finds."""
    labels = [each.label for each in labels_of(tool)]
    return [label for label in labels if '"backup.manifest"' not in _names_in(tool, f"backup/{STANZA}/{label}")]


def _names_in(tool: PgBackRest, folder: str) -> str:
    return tool.run("repo-ls", "--output=json", folder, "--log-level-console=error")


def missing_log(tool: PgBackRest) -> list[str]:
    """The segments that a backup needs, or that come after the newest backup began, and are not there."""
    known, there = labels_of(tool), set(_segments(tool))
    wanted: set[str] = set()
    for each in known:
        wanted.update(_between(each.first_segment, each.last_segment))
    if known:
        newest = max((each for each in there if each[:8] == known[-1].first_segment[:8]), default="")
        wanted.update(_between(known[-1].first_segment, newest))
    return sorted(wanted - there)


def _segments(tool: PgBackRest) -> Iterator[str]:
    for line in tool.run("repo-ls", "--recurse", f"archive/{STANZA}", "--log-level-console=error").splitlines():
        found = _SEGMENT.search(line)
        if found:
            yield found[1]


def _between(first: str, last: str) -> Iterator[str]:
    """The names of the segments from first to last, both included, on the timeline of the first."""
    for number in range(_number(first), _number(last) + 1 if last else 0):
        high, low = divmod(number, _SEGMENTS_PER_FILE_NUMBER)
        yield f"{first[:8]}{high:08X}{low:08X}"


def _number(segment: str) -> int:
    return int(segment[8:16], 16) * _SEGMENTS_PER_FILE_NUMBER + int(segment[16:24], 16)
