"""What a setting of the machine may be: a text as a person writes it, checked, and brought into one form.

Each function takes the text and returns it in the form that is kept, or raises UsageError that says what is wrong and
how it is written. Lists are parted by spaces, commas, semicolons or lines, and kept with a space between.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
import ssl
import zoneinfo
from collections.abc import Callable
from urllib.parse import urlsplit

from pacs.errors import UsageError

Parse = Callable[[str], str]

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
_MAILBOX = re.compile(r"[^\s@<>,;\"]+@[^\s@<>,;\"]+")
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)
_PARTS = re.compile(r"[\s,;]+")
_KEY_KINDS = (
    "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa",
    "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com",
)  # fmt: skip
_RSA_SIZE_BYTES_MIN = 270  # of 2,048 bits, with the rest of the key's blob
#: What else listens here: SSH, HTTP, HTTPS, DICOM with TLS, and PostgreSQL's usual one.
_TAKEN_PORTS = (22, 80, 443, 2762, 5432)


def parts(text: str) -> list[str]:
    """The parts of a list."""
    return [part for part in _PARTS.split(text.strip()) if part]


def each(parse: Parse) -> Parse:
    """A list of what parse takes, each once."""
    return lambda text: " ".join(dict.fromkeys(parse(part) for part in parts(text)))


def choice(*words: str) -> Parse:
    """One of these words."""

    def parsed(text: str) -> str:
        if text.strip().lower() not in words:
            raise UsageError(f"{text.strip()!r} is none of: {', '.join(words)}.")
        return text.strip().lower()

    return parsed


def host_name(text: str) -> str:
    """A host name, with or without its domain (RFC 1123)."""
    name = text.strip().lower().rstrip(".")
    if len(name) > 64 or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise UsageError(f"{text!r} is no host name. Letters, digits and hyphens: pacs, or pacs.hospital.example.")
    if re.fullmatch(r"[0-9.]+", name):
        raise UsageError(f"{text!r} is an address or a number, no host name. Begin it with a letter: pacs.")
    return name


def server(text: str) -> str:
    """A host name or an address."""
    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError:
        return host_name(text)


def address(version: int) -> Parse:
    """An address of IPv4 or IPv6, without a prefix length."""
    example = "192.0.2.1" if version == 4 else "2001:db8::1"

    def parsed(text: str) -> str:
        try:
            found = ipaddress.ip_address(text.strip())
        except ValueError:
            found = None
        if found is None or found.version != version:
            raise UsageError(f"{text!r} is no IPv{version} address. Write it as {example}.")
        return str(found)

    return parsed


def any_address(text: str) -> str:
    """An address of either kind."""
    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError as error:
        raise UsageError(f"{text!r} is no address. Write it as 192.0.2.1.") from error


def interface(version: int) -> Parse:
    """An address that a machine may have, with the length of its network's prefix."""
    example = "192.0.2.10/24" if version == 4 else "2001:db8::10/64"

    def parsed(text: str) -> str:
        words = text.strip()
        try:
            found = ipaddress.ip_interface(words)
        except ValueError:
            found = None
        if found is None or found.version != version or "/" not in words:
            raise UsageError(f"{text!r} is no IPv{version} address with its prefix length. Write it as {example}.")
        if found.is_multicast or found.is_loopback or found.is_unspecified or found.is_link_local:
            raise UsageError(f"{found.ip} is an address of a special kind that no machine gets. Take one of your own.")
        network = found.network
        bits = network.max_prefixlen - network.prefixlen
        if version == 4 and bits > 1 and found.ip in (network.network_address, network.broadcast_address):
            raise UsageError(f"{found.ip} is the network {network} itself or its broadcast. Take one between them.")
        if network.prefixlen == 0:
            raise UsageError(f"/{network.prefixlen} would make all the world the own network. Write it as {example}.")
        return str(found)

    return parsed


def second_address(text: str) -> str:
    """`dhcp`, or an IPv4 address with its prefix length."""
    return "dhcp" if text.strip().lower() == "dhcp" else interface(4)(text)


def route(text: str) -> str:
    """`NETWORK via GATEWAY`."""
    words = text.split()
    if len(words) == 3 and words[1] == "via":
        try:
            network, gateway = ipaddress.ip_network(words[0]), ipaddress.ip_address(words[2])
        except ValueError as error:
            raise UsageError(f"{text!r} is no route: {error}. Write it as 10.20.0.0/16 via 192.0.2.254.") from error
        if network.version == gateway.version:
            return f"{network} via {gateway}"
    raise UsageError(f"{text!r} is no route. Write it as 10.20.0.0/16 via 192.0.2.254.")


def routes(text: str) -> str:
    """Routes, parted by commas, semicolons or lines; kept with a comma between."""
    return ", ".join(dict.fromkeys(route(part) for part in re.split(r"[,;\n]", text) if part.strip()))


def vlan(text: str) -> str:
    """A VLAN's number (IEEE 802.1Q)."""
    return number(text, 1, 4094, "VLAN")


def number(text: str, least: int, most: int, what: str) -> str:
    """A whole number between two bounds."""
    words = text.strip()
    if not (words.isascii() and words.isdigit()) or not least <= int(words) <= most:
        raise UsageError(f"{text!r} is no {what}: a number from {least} to {most}.")
    return str(int(words))


def card(text: str) -> str:
    """A network card's hardware address."""
    found = text.strip().lower().replace("-", ":")
    if not _MAC.fullmatch(found):
        raise UsageError(f"{text!r} is no hardware address. Write it as 00:50:56:aa:bb:cc.")
    return found


def port(text: str) -> str:
    """A TCP port."""
    return number(text, 1, 65535, "port")


def ports(text: str) -> str:
    """Ports of our own: at least one, and none that something else has here."""
    found = each(port)(text)
    taken = [each for each in found.split() if int(each) in _TAKEN_PORTS]
    if taken or not found:
        raise UsageError(f"{text!r} cannot be DICOM's ports: {', '.join(taken) or 'none'} is in use here. Usual: 104.")
    return found


def proxy(text: str) -> str:
    """An HTTP proxy's URL without a password, which would stand in the environment of every service."""
    words = text.strip()
    url = urlsplit(words if "://" in words else f"http://{words}")
    try:
        number_ = url.port
    except ValueError:
        number_ = None
    if url.scheme != "http" or not url.hostname or number_ is None or url.path.strip("/") or url.query:
        raise UsageError(f"{text!r} is no proxy. Write it as http://proxy.hospital.example:3128.")
    if url.username or url.password:
        raise UsageError("A proxy's password is not kept here. Have the proxy let this machine's address through.")
    name = server(url.hostname)
    return f"http://{f'[{name}]' if ':' in name else name}:{number_}"


def ups_driver(text: str) -> str:
    """A driver of NUT's, and its port: usbhid-ups auto, apcsmart /dev/ttyS0."""
    words = text.split()
    good = len(words) in (1, 2) and re.fullmatch(r"[a-z0-9_-]+", words[0]) and re.fullmatch(r"[\w./:-]+", words[-1])
    if not good:
        raise UsageError(f"{text!r} is no driver and port. Write it as apcsmart /dev/ttyS0; NUT's list names drivers.")
    return " ".join([*words, "auto"][:2])


def ups_server(text: str) -> str:
    """A UPS as NUT names it: ups@host, ups@host:port."""
    name, at, place = text.strip().partition("@")
    host, _, number = place.rpartition(":") if re.search(r"[^:]:\d+$|\]:\d+$", place) else (place, "", "")
    if not at or not re.fullmatch(r"[\w.-]+", name, re.ASCII):
        raise UsageError(f"{text!r} is no UPS of another machine. Write it as ups@nut.hospital.example.")
    found = server(host.strip("[]"))
    return f"{name}@{f'[{found}]' if ':' in found else found}{f':{port(number)}' if number else ''}"


def word(text: str) -> str:
    """A word that stands in a configuration file: no space, no quotation mark, no backslash."""
    if not re.fullmatch(r"[!#-\[\]-~]{1,64}", text.strip()):
        raise UsageError("Take letters, digits and signs of ASCII, without spaces, quotation marks and backslashes.")
    return text.strip()


def percent(least: int, most: int) -> Parse:
    """A whole number of percents."""

    def parsed(text: str) -> str:
        number = text.strip().removesuffix("%").strip()
        if not number.isdecimal() or not least <= int(number) <= most:
            raise UsageError(f"{text!r} is no number of {least} to {most}.")
        return str(int(number))

    return parsed


def certificates(text: str) -> str:
    """Certificates as PEM, or PEM in base64 (one line, for OVF properties); each is looked at."""
    words = text.strip()
    if words and "-----BEGIN" not in words:
        try:
            words = base64.b64decode(words, validate=False).decode("ascii")
        except (binascii.Error, UnicodeDecodeError):
            words = ""
    found = []
    for body in _PEM.findall(words):
        packed = "".join(body.split())  # an OVF property has spaces for its lines
        lines = [packed[start : start + 64] for start in range(0, len(packed), 64)]
        found.append("\n".join(("-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----")) + "\n")
    if not found or "PRIVATE KEY" in words:
        raise UsageError("This is no certificate in PEM. Give the CA's certificate alone, never a private key.")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata="".join(found))
    except (ssl.SSLError, ValueError) as error:
        raise UsageError(f"This certificate cannot be read ({error}). Export it again as PEM (Base64).") from error
    return "".join(dict.fromkeys(found))


def time_zone(text: str) -> str:
    """A time zone's name in the IANA database."""
    words = text.strip()
    for name in zoneinfo.available_timezones():
        if name.lower() == words.lower():
            return name
    raise UsageError(f"{text!r} is no time zone. Write it as Europe/Berlin, America/New_York or UTC.")


def ae_title(text: str) -> str:
    """An AE title (PS3.5 Table 6.2-1)."""
    from pacs.settings import AE_TITLE  # with pydantic, which the boot path must not need

    words = text.strip()
    if len(words) > 16 or not re.fullmatch(AE_TITLE, words):
        raise UsageError(f"{text!r} is no AE title: 1 to 16 letters, digits and signs of ASCII, as PACS.")
    return words


def mailbox(text: str) -> str:
    """The address of a mailbox."""
    if not _MAILBOX.fullmatch(text.strip()) or not text.isascii():
        raise UsageError(f"{text!r} is no address of a mailbox. Write it as it@hospital.example.")
    return text.strip()


def ssh_keys(text: str) -> str:
    """Public keys of SSH, one a line, as in authorized_keys but without options."""
    return "\n".join(dict.fromkeys(_ssh_key(line) for line in text.splitlines() if line.strip()))


def _ssh_key(line: str) -> str:
    words = line.split()
    if "PRIVATE KEY" in line:
        raise UsageError("This is a private key. Keep it to yourself, and give the other half, from the file *.pub.")
    if len(words) < 2 or words[0] not in _KEY_KINDS:
        raise UsageError(f"{line[:30]!r} is no public key. Give the line of a file *.pub: ssh-ed25519 AAAA... name.")
    try:
        blob = base64.b64decode(words[1], validate=True)
        size = int.from_bytes(blob[:4], "big")
    except (binascii.Error, ValueError):
        blob, size = b"", 0
    kind = words[0].encode()
    if blob[4 : 4 + size] != kind or len(blob) < 4 + size + 36:
        raise UsageError(f"The key {words[1][:16]}... is cut short or mistyped. Copy the whole line again.")
    if words[0] == "ssh-rsa" and len(blob) < _RSA_SIZE_BYTES_MIN:
        raise UsageError("This RSA key is too short. Make a new one: ssh-keygen -t ed25519.")
    return " ".join(words)
