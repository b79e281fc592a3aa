"""The fixtures of all tests, by subject in tests/fix_*.py."""

pytest_plugins = [
    "tests.fix_instance",
    "tests.fix_bucket",
    "tests.fix_share",
    "tests.sftp_server",
    "tests.fix_cluster",
]
