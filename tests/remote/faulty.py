"""An HTTP endpoint that passes requests on to a real one, and on demand fails as endpoints and networks do."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.certificates import Certificate


@dataclass
class Answer:
    """What the real endpoint answered; a fault changes it."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    #: How much of the body is sent before the connection is cut; None: all of it, and it is not.
    cut_after_bytes: int | None = None
    #: Whether nothing more is sent then, with the connection left open, until the endpoint is stopped.
    stall: bool = False


@dataclass
class Fault:
    """What happens to the next `times` requests that match."""

    method: str
    path_part: str
    change: Callable[[Answer], Answer]
    times: int = 1
    #: Whether the real endpoint gets the request at all.
    forward: bool = True


@dataclass
class FaultyEndpoint:
    """The endpoint; `url` is where it is. `seen` has every request: method and path."""

    upstream: str
    faults: list[Fault] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)
    #: With it, the endpoint speaks TLS.
    certificate: Certificate | None = None

    def __post_init__(self) -> None:
        self._stopped = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        if self.certificate is not None:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(self.certificate.certificate, self.certificate.key)
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http{'s' if self.certificate else ''}://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()

    def fail(
        self, method: str, path_part: str, change: Callable[[Answer], Answer], times: int = 1, forward: bool = True
    ) -> Fault:
        """Have the next requests fail."""
        fault = Fault(method, path_part, change, times, forward)
        self.faults.append(fault)
        return fault

    def _fault_for(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.method == method and fault.path_part in path and fault.times > 0:
                fault.times -= 1
                return fault
        return None

    def _ask(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        connection = http.client.HTTPConnection(urlsplit(self.upstream).netloc, timeout=30)
        try:
            connection.request(method, path, body or None, headers)
            answer = connection.getresponse()
            return Answer(answer.status, answer.getheaders(), answer.read())
        finally:
            connection.close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                if endpoint._stopped.is_set():  # a connection that was kept open
                    self.close_connection = True
                    return
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                endpoint.seen.append((self.command, self.path))
                fault = endpoint._fault_for(self.command, self.path)
                headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
                if fault is None or fault.forward:
                    answer = endpoint._ask(self.command, self.path, headers, body)
                else:
                    answer = Answer(200, [], b"")
                self._give(fault.change(answer) if fault else answer)

            def _give(self, answer: Answer) -> None:
                self.send_response(answer.status)
                stated = {name.lower(): value for name, value in answer.headers}
                for name, value in answer.headers:
                    if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                        self.send_header(name, value)
                length = stated.get("content-length", "0") if self.command == "HEAD" else str(len(answer.body))
                self.send_header("Content-Length", length)
                self.end_headers()
                if self.command == "HEAD":
                    return
                self.wfile.write(answer.body[: answer.cut_after_bytes])
                self.wfile.flush()
                if answer.stall:
                    endpoint._stopped.wait()
                if answer.cut_after_bytes is not None or answer.stall:
                    self.close_connection = True

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815

            def log_message(self, *_words: object) -> None:
                pass

        return Handler


def slow_down(_answer: Answer) -> Answer:
    """503 SlowDown, as Amazon says it."""
    body = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Slower.</Message></Error>"
    return Answer(503, [("Content-Type", "application/xml")], body)


def error_in_success(_answer: Answer) -> Answer:
    """200 with an error as its body, as some endpoints end what took them long."""
    body = b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>We failed.</Message></Error>"
    return Answer(200, [("Content-Type", "application/xml")], body)


def nothing_said(_answer: Answer) -> Answer:
    """200 and no more, as a proxy answers that knows nothing of S3."""
    return Answer(200, [], b"")


def an_error(status: int, code: str) -> Callable[[Answer], Answer]:
    """An S3 error."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    return lambda _answer: Answer(status, [("Content-Type", "application/xml")], body)


def cut_at(size_bytes: int) -> Callable[[Answer], Answer]:
    """The connection is cut in the body."""

    def change(answer: Answer) -> Answer:
        answer.cut_after_bytes = size_bytes
        return answer

    return change


def stall_at(size_bytes: int) -> Callable[[Answer], Answer]:
    """The body stops, and nothing more comes."""

    def change(answer: Answer) -> Answer:
        answer.cut_after_bytes, answer.stall = size_bytes, True
        return answer

    return change


def another_body(body: bytes) -> Callable[[Answer], Answer]:
    """Another object's bytes, as if they were this one's."""

    def change(answer: Answer) -> Answer:
        answer.body = body
        return answer

    return change
