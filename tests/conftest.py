"""The fixtures of all tests, by subject in tests/fix_*.py."""

import os

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
