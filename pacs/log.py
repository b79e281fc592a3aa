"""Logging: one line an event, to standard error, which systemd's journal keeps.

A line has the level, the sentence, and the machine's keys behind it. Only keys that are known to be harmless are
written, so a patient's data cannot leak through `extra`; sentences are ours and hold none.
"""

from __future__ import annotations

import logging
import re
import sys
import warnings

#: What may stand in a log record's extra. None of these can identify a patient.
KEYS = (
    "calling_ae", "peer", "sop_class", "request", "object", "migration", "volume", "tier", "objects", "bytes",
    "study_key", "seconds", "path", "point",
)  # fmt: skip

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class LineFormatter(logging.Formatter):
    """Level, sentence, keys; control characters removed, so that nobody can forge a line."""

    def format(self, record: logging.LogRecord) -> str:
        keys = [f"{key}={getattr(record, key)!s}" for key in KEYS if hasattr(record, key)]
        line = _CONTROL.sub(" ", " ".join([record.getMessage(), *keys]))
        if record.exc_info:
            # The type and the place, never the values: an exception's text may quote a data set.
            line += " | " + _traceback_without_values(record)
        return f"{_PRIORITY.get(record.levelno, '')}{record.levelname.lower()}: {line}"


def _traceback_without_values(record: logging.LogRecord) -> str:
    kind, _error, trace = record.exc_info or (None, None, None)
    places = []
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return f"{kind.__name__ if kind else 'error'} at {' < '.join(reversed(places))}"


_PRIORITY: dict[int, str] = {}
_SYSLOG = {logging.DEBUG: "<7>", logging.INFO: "<6>", logging.WARNING: "<4>", logging.ERROR: "<3>"}


def set_up(to_journal: bool = False, verbose: bool = False) -> None:
    """Log to standard error. to_journal puts systemd's priority before each line (sd-daemon(3))."""
    if to_journal:
        _PRIORITY.update(_SYSLOG)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    # pydicom logs and warns of odd values and quotes them, and a value may be a patient's.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    logging.getLogger("pacs").setLevel(logging.DEBUG if verbose else logging.INFO)
