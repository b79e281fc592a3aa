"""The web service in the test's own process, asked over HTTP on loopback; and requests of STOW-RS."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import httpx
import uvicorn

from pacs.archive.tokens import add_token
from pacs.checks.check import Subject
from pacs.cli.instance import Instance
from pacs.cli.web import dicomweb_of
from pacs.web.app import make_app

ROOT = "/dicom-web"


@dataclass
class Web:
    """A running web service."""

    port: int
    instance: Instance

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def client(self, *scopes: str, **headers: str) -> httpx.Client:
        """A client with a new token of these scopes; without one for none."""
        if scopes:
            name = f"t{len(self.instance.database.conninfo)}-{threading.get_ident()}-{next(_numbers)}"
            _token, secret = add_token(self.instance.database, self.instance.journal, name, scopes)
            headers["Authorization"] = f"Bearer {secret}"
        return httpx.Client(base_url=self.url, headers=headers, timeout=60)


_numbers = iter(range(1, 1 << 30))


@contextmanager
def web_server(instance: Instance, **settings: object) -> Iterator[Web]:
    """The web service of an instance, with some settings of its own."""
    own = replace(instance, settings=instance.settings.model_copy(update=settings))
    with dicomweb_of(own) as routes, socket.create_server(("127.0.0.1", 0)) as listening:
        app = make_app(Subject(own.settings, own.database, own.volumes), routes)
        config = uvicorn.Config(app, log_config=None, lifespan="off", access_log=False, proxy_headers=False)
        server = uvicorn.Server(config)
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="web")
        thread.start()
        try:
            yield Web(int(listening.getsockname()[1]), own)
        finally:
            server.should_exit = True
            thread.join(30)


def body(parts: Iterable[tuple[str, bytes]], boundary: str = "X-boundary") -> bytes:
    """A multipart body of parts, each with its headers."""
    made = [f"--{boundary}\r\n{headers}\r\n\r\n".encode() + content + b"\r\n" for headers, content in parts]
    return b"".join(made) + f"--{boundary}--\r\n".encode()


def store(client: httpx.Client, files: Iterable[bytes], path: str = f"{ROOT}/studies") -> httpx.Response:
    """Store files of PS3.10."""
    content = body(("Content-Type: application/dicom", each) for each in files)
    return client.post(path, content=content, headers={"Content-Type": content_type("application/dicom")})


def content_type(kind: str, boundary: str = "X-boundary") -> str:
    """The media type of a body."""
    return f'multipart/related; type="{kind}"; boundary={boundary}'


def parts_of(response: httpx.Response) -> list[tuple[dict[str, str], bytes]]:
    """The parts of a multipart answer, taken apart by the standard library."""
    from email.parser import BytesParser
    from email.policy import HTTP

    head = f"Content-Type: {response.headers['content-type']}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + response.content)
    boundary = message.get_boundary()
    assert boundary is not None
    found = []
    for part in response.content.split(f"--{boundary}".encode())[1:-1]:
        headers, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        lines = dict(line.decode().split(": ", 1) for line in headers.split(b"\r\n"))
        found.append((lines, content.removesuffix(b"\r\n")))
    return found
