"""DICOMweb behind nginx with the role's own configuration: nginx sends whole objects, and only where we said so."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import jinja2
import pytest

from pacs.cli.instance import Instance
from pacs.machine.identity import make_dicom_tls
from tests.synthetic import ct_study
from tests.web_server import ROOT, Web, store, web_server

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
TEMPLATE = Path(__file__).parents[2] / "roles/proxy/tree/etc/nginx/nginx.conf.j2"
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not here (requirements/debian-test.txt)")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def configuration(folder: Path, root: Path, web_port: int, http: int, https: int) -> str:
    """The role's, with the places of a test."""
    text = jinja2.Template(TEMPLATE.read_text()).render(proxy_max_body_size="4g")
    for old, new in (
        ("user www-data;", "user root;\ndaemon off;"),
        ("/run/nginx.pid", str(folder / "nginx.pid")),
        ("include /etc/nginx/modules-enabled/*.conf;", ""),
        ("include /etc/nginx/mime.types;", ""),
        ("error_log syslog:server=unix:/dev/log,nohostname,tag=nginx crit", f"error_log {folder}/error.log crit"),
        ("access_log syslog:server=unix:/dev/log,nohostname,tag=nginx", f"access_log {folder}/access.log"),
        ("/srv/pacs/state/identity/tls/", f"{folder}/tls/"),
        ("server unix:/run/pacs/web.sock", f"server 127.0.0.1:{web_port}"),
        ("/srv/pacs", str(root)),
        ("http2 on;", ""),  # of nginx 1.25; the tests' host may have an older one
    ):
        assert old in text, old
        text = text.replace(old, new)
    text = re.sub(r"listen \[::\]:[^;]*;", "", text)
    text = text.replace("listen 80 ", f"listen 127.0.0.1:{http} ").replace("listen 443 ", f"listen 127.0.0.1:{https} ")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"    {kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    return text.replace("http {\n", f"http {{\n{temporary}", 1)


@pytest.fixture
def proxied(instance: Instance, tmp_path: Path) -> Iterator[tuple[Web, httpx.Client, Path]]:
    """The service behind nginx; a client over TLS with a token; nginx's folder."""
    folder = tmp_path / "nginx"
    make_dicom_tls(folder / "tls", "localhost")
    http, https = free_port(), free_port()
    settings = {"accel_root": instance.settings.data.parent, "http_socket": tmp_path / "web.sock"}
    with web_server(instance, **settings) as web:
        file = folder / "nginx.conf"
        file.write_text(configuration(folder, instance.settings.data.parent, web.port, http, https))
        assert NGINX is not None
        process = subprocess.Popen([NGINX, "-c", str(file), "-p", str(folder), "-e", str(folder / "start.log")])
        try:
            ends = time.monotonic() + 30
            while True:
                try:
                    socket.create_connection(("127.0.0.1", https), 1).close()
                    break
                except OSError:
                    assert process.poll() is None and time.monotonic() < ends, (folder / "start.log").read_text()
                    time.sleep(0.05)
            context = ssl.create_default_context(cafile=str(folder / "tls" / "certificate.pem"))
            context.check_hostname = False
            with web.client("read", "store") as plain:
                headers = {"Authorization": plain.headers["authorization"]}
            with httpx.Client(
                base_url=f"https://localhost:{https}", headers=headers, verify=context, timeout=60
            ) as client:
                yield web, client, folder
        finally:
            process.terminate()
            process.wait(20)


def test_whole_objects_are_sent_by_nginx(proxied: tuple[Web, httpx.Client, Path]) -> None:
    web, client, folder = proxied
    made = ct_study(7, 2)
    answer = store(client, [each.part10 for each in made])
    assert answer.status_code == 200, answer.text
    url = answer.json()["00081199"]["Value"][0]["00081190"]["Value"][0]
    assert url.startswith(str(client.base_url).rstrip("/")), "URLs are those of the side that asks"
    one = client.get(url, headers={"Accept": "application/dicom"})
    assert one.status_code == 200
    assert one.content[-len(made[0].dataset) :] == made[0].dataset
    assert "x-accel-redirect" not in one.headers
    assert one.headers["x-content-type-options"] == "nosniff"
    assert one.headers["cache-control"] == "private, no-cache"
    assert one.headers["content-type"].startswith("application/dicom")
    part = client.get(url, headers={"Accept": "application/dicom", "Range": "bytes=128-131"})
    assert (part.status_code, part.content) == (206, b"DICM"), "a range is nginx's own"
    known = client.get(url, headers={"Accept": "application/dicom", "If-None-Match": one.headers["etag"]})
    assert known.status_code == 304
    path = next(web.instance.settings.data.rglob("*.dcm")).relative_to(web.instance.settings.data.parent)
    for guess in (
        f"/internal-objects/{path}",
        "/internal-objects/../etc/passwd",
        "/internal-objects/data/config/pacs.toml",
    ):
        assert client.get(guess).status_code == 404, "only an answer of ours leads there"
    headers = {"Accept": "application/dicom", "Authorization": client.headers["authorization"]}
    direct = httpx.get(web.url + httpx.URL(url).path, headers=headers)
    assert direct.headers["x-accel-redirect"].startswith("/internal-objects/")
    assert direct.content == b"", "nginx sent it, not we"

    assert client.get(f"{ROOT}/studies?PatientName=Mueller-secret").status_code == 204
    log = (folder / "access.log").read_text()
    assert f"{ROOT}/studies" in log
    assert "secret" not in log, "what was searched for is in no log"
