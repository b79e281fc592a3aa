"""The fixtures of all tests, by subject in tests/fix_*.py."""

import logging
import os
from collections.abc import Iterator

import pytest

from pacs.log import LineFormatter

pytest_plugins = [
    "tests.fix_instance",
    "tests.fix_bucket",
    "tests.fix_share",
    "tests.sftp_server",
    "tests.fix_cluster",
    "tests.fix_twins",
]

# With these pytest prints whole values where an assertion fails, and the name of the test scrolls out of a CI's record.
for name in ("CI", "BUILD_NUMBER"):
    os.environ.pop(name, None)


@pytest.fixture(autouse=True)
def _what_a_command_sets_ends_with_its_test() -> Iterator[None]:
    """A command that a test runs in this process logs to the standard error that pytest had given that test, and it
    sets the process's umask."""
    umask = os.umask(0o022)
    os.umask(umask)
    yield
    os.umask(umask)
    root = logging.getLogger()
    root.handlers[:] = [each for each in root.handlers if not isinstance(each.formatter, LineFormatter)]
