"""Where security updates come from: Debian's archive as the image names it, or a mirror in the house."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from pacs.errors import UsageError
from pacs.machine.firewall_policy import Destination, Named
from pacs.machine.setting_values import server

#: Read by apt in place of its own list when a mirror is set.
MIRROR_LIST, MIRROR_CONF = "etc/apt/pacs-mirror.list", "etc/apt/apt.conf.d/90pacs-mirror"
_PORTS = {"http": 80, "https": 443}
_LINE = re.compile(r"^(?:deb(?: +\[[^\]]*\])? +|URIs: *)(?P<url>https?://\S+)", re.M)


def mirror(text: str) -> str:
    """The URL of a mirror of Debian's security archive. Raise UsageError."""
    words = text.strip().rstrip("/")
    url = urlsplit(words)
    try:
        port = url.port
        if url.scheme in _PORTS and url.hostname and not (url.username or url.password or url.query):
            name = server(url.hostname)
            place = f"[{name}]" if ":" in name else name
            return f"{url.scheme}://{place}{f':{port}' if port else ''}{url.path}"
    except ValueError:
        pass
    raise UsageError(f"{text!r} is no mirror. Write it as http://mirror.hospital.example/debian-security.")


def mirror_list(url: str, codename: str) -> str:
    """apt's list of sources with that mirror alone. Signed by Debian, whoever hands it out."""
    return f"deb {url} {codename}-security main\n"


def mirror_conf() -> str:
    """What has apt read that list and no other."""
    return f'Dir::Etc::sourcelist "/{MIRROR_LIST}";\nDir::Etc::sourceparts "-";\n'


def called(root: Path, url: str) -> Named:
    """Whom apt calls for updates: the mirror, or who stands in the system's own lists."""
    etc = root / "etc/apt"
    lists = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]
    texts = [each.read_text("utf-8") for each in lists if each.is_file()]
    urls = [url] if url else [found["url"] for text in texts for found in _LINE.finditer(text)]
    places = {(each.hostname or "", each.port or _PORTS[each.scheme]) for each in map(urlsplit, urls)}
    return Named(tuple(Destination("security updates", host, port) for host, port in sorted(places) if host))
