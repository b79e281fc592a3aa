"""Answers `/healthz` on port 80 while the storage is not ready and nothing else runs: 503, and what to do.

Whoever watches the appliance then sees that it is up and waits, for a key or for a disk. No secret and no patient is
in it: it is what the display shows. nginx takes the port over as soon as it starts.
"""

from __future__ import annotations

import json
import socket
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_TIMEOUT_S = 10.0
_STARTING = "The storage is being looked for."


def answer(storage: Path) -> bytes:
    """What is said: the problems of the last start, as pacs-storage.service wrote them down."""
    try:
        problems = list(json.loads(storage.read_text("utf-8"))["problems"])
    except (OSError, ValueError, KeyError, TypeError):
        problems = []
    return (json.dumps({"status": "waiting", "problems": problems or [_STARTING]}) + "\n").encode()


class _Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True


def server(storage: Path, port: int) -> ThreadingHTTPServer:
    """A server on every address of both families. port: 0 for a free one."""

    class Handler(BaseHTTPRequestHandler):
        timeout = _TIMEOUT_S

        def do_GET(self) -> None:
            content = answer(storage)
            self.send_response(HTTPStatus.SERVICE_UNAVAILABLE)
            for name, value in (("Content-Type", "application/json"), ("Content-Length", str(len(content)))):
                self.send_header(name, value)
            self.send_header("Retry-After", "30")
            self.end_headers()
            self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815 (the library's name)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the library's)
            """Nothing: watchers ask all the time."""

        def version_string(self) -> str:
            return "pacs"

    return _Server(("::", port), Handler)


if __name__ == "__main__":
    server(Path("/run/pacs-machine/storage.json"), 80).serve_forever()
