"""The command that verifies an OVA: good ones pass, and whatever can befall one on its way is named."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from packer.errors import BuildError
from packer.ova.package import manifest
from packer.ova.signature import Signer, read_certificates, read_signer, signer_of_environment
from packer.ova.verify import main, verify
from tests.ovf.conftest import make_ova, read_members
from tests.ovf.test_importers import READERS, Reader, _name

Members = dict[str, bytes]


def _openssl(*words: str | Path) -> str:
    return subprocess.run(["openssl", *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, a signer that it has certified, and a stranger; all by openssl."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ca", "stranger"):
        _openssl("req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "2", "-subj", f"/CN={name}",
                 "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem")  # fmt: skip
    _openssl("req", "-newkey", "rsa:2048", "-noenc", "-subj", "/O=Example Hospital/CN=Release", "-keyout",
             folder / "signer.key", "-out", folder / "signer.csr")  # fmt: skip
    _openssl("x509", "-req", "-days", "2", "-in", folder / "signer.csr", "-CA", folder / "ca.pem",
             "-CAkey", folder / "ca.key", "-CAcreateserial", "-out", folder / "signer.pem")  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def signer(keys: Path) -> Signer:
    return read_signer(keys / "signer.key", keys / "signer.pem")


@pytest.fixture(scope="session")
def signed(system: Path, signer: Signer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OVA that is signed."""
    return make_ova(system, tmp_path_factory.mktemp("signed"), signer)


@pytest.fixture(scope="session")
def unsigned(system: Path, tmp_path_factory: pytest.TempPathFactory) -> Members:
    """What is in a small OVA that is not signed."""
    return read_members(make_ova(system, tmp_path_factory.mktemp("unsigned")))


def _pack(members: Mapping[str, bytes], target: Path) -> Path:
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return target


def _listed(members: Members) -> Members:
    """The same with a manifest that fits: what is found must be found behind it."""
    digests = [
        (name, hashlib.sha256(content).hexdigest())
        for name, content in members.items()
        if not name.endswith((".mf", ".cert"))
    ]
    listing = manifest(digests).encode()
    return {name: listing if name.endswith(".mf") else content for name, content in members.items()}


def _suffix(members: Members, suffix: str) -> str:
    return next(name for name in members if name.endswith(suffix))


def test_a_good_one(ova: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(ova)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "signature: none"
    assert [line.split(":")[0] for line in said] == ["signature", "manifest", "descriptor", *4 * ["disk"]]


@pytest.mark.parametrize("kept", [0, 300, 700, 40_000, -1_000_000, -20_000, -1024])
def test_cut_off(kept: int, ova: Path, tmp_path: Path) -> None:
    """Wherever a download ended, also where only the tar's own end is missing."""
    content = ova.read_bytes().rstrip(b"\0")
    end = -(-len(content) // 512) * 512 + 512  # the last disk's end-of-stream marker is zeros too
    part = ova.read_bytes()[: kept if kept >= 0 else end + 1024 + kept]
    short = tmp_path / "short.ova"
    short.write_bytes(part)
    with pytest.raises(BuildError, match=r"cut off|is no OVA|empty|not is what|does not end|changed or damaged"):
        verify(short)


CHANGES: list[tuple[str, Callable[[Members], Members], str]] = [
    ("a byte of a disk", lambda m: m | {(n := _suffix(m, "-system.vmdk")): _flip(m[n], -5000)}, "changed or damaged"),
    ("a byte of a grain", lambda m: _listed(m | {(n := _suffix(m, "-system.vmdk")): _flip(m[n], -9000)}), "grain at"),
    ("a disk that ends early", lambda m: _shorter(m, "-system.vmdk"), "VMDK|vmdk: "),
    ("zeros behind a disk", lambda m: _resized(m, "-system.vmdk", bytes(512)), "exactly one empty sector"),
    ("the descriptor", lambda m: m | {(n := _suffix(m, ".ovf")): m[n].replace(b"4096", b"1024")}, "changed or damaged"),
    ("a disk gone", lambda m: {n: c for n, c in m.items() if not n.endswith("tier2.vmdk")}, "don't hold the same"),
    ("a file more", lambda m: m | {"more.vmdk": b"x"}, "don't hold the same"),
    ("a file more, listed", lambda m: _listed(m | {"more.vmdk": b"x"}), "another order"),
    ("the manifest first", lambda m: dict(sorted(m.items(), key=lambda i: not i[0].endswith(".mf"))), "order"),
    ("the disks in another order", lambda m: _listed(_swapped(m)), "another order"),
    ("a manifest of OpenSSL 3", lambda m: m | {(n := _suffix(m, ".mf")): m[n].replace(b"SHA256", b"SHA2-256")}, "line"),
    ("another size", lambda m: _listed(m | {(n := _suffix(m, ".ovf")): _other_size(m[n])}), "speaks of"),
    ("another capacity", lambda m: _listed(m | {(n := _suffix(m, ".ovf")): m[n].replace(b'"80"', b'"81"')}), "disk of"),
    ("OVF 2", lambda m: _listed(m | {(n := _suffix(m, ".ovf")): m[n].replace(b"lope/1", b"lope/2")}), "OVF 1"),
    ("no XML", lambda m: _listed(m | {_suffix(m, ".ovf"): b"<Envelope"}), "no XML"),
    ("entities", lambda m: _listed(m | {_suffix(m, ".ovf"): b'<!DOCTYPE x [<!ENTITY a "b">]><x/>'}), "entities"),
    ("other hardware", lambda m: _listed(m | {(n := _suffix(m, ".ovf")): m[n].replace(b"vmx-13", b"vb-2.2")}), "lacks"),
    ("a path", lambda m: {f"x/{n}": c for n, c in m.items()}, "no file of an OVA"),
    ("nothing", lambda m: {}, "empty|no OVA"),
]


def _flip(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def _other_size(xml: bytes) -> bytes:
    return xml.replace(b'ovf:size="', b'ovf:size="1')


def _shorter(members: Members, suffix: str) -> Members:
    name = _suffix(members, suffix)
    return _sized(members, name, members[name][: len(members[name]) // 2])


def _resized(members: Members, suffix: str, more: bytes) -> Members:
    name = _suffix(members, suffix)
    return _sized(members, name, members[name] + more)


def _sized(members: Members, name: str, content: bytes) -> Members:
    descriptor = _suffix(members, ".ovf")
    sizes = f'ovf:size="{len(members[name])}"'.encode(), f'ovf:size="{len(content)}"'.encode()
    return _listed({**members, name: content, descriptor: members[descriptor].replace(*sizes)})


def _swapped(members: Members) -> Members:
    names = list(members)
    names[-1], names[-2] = names[-2], names[-1]
    return {name: members[name] for name in names}


@pytest.mark.parametrize(("change", "expected"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES])
def test_changed(change: Callable[[Members], Members], expected: str, unsigned: Members, tmp_path: Path) -> None:
    verify(_pack(unsigned, tmp_path / "same.ova"))
    with pytest.raises(BuildError, match=expected):
        verify(_pack(change(unsigned), tmp_path / "changed.ova"))


def test_what_is_no_ova_and_what_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.ova"
    page.write_text("<html>404</html>" * 100)
    assert main([str(page)]) == 1
    assert "no OVA" in capsys.readouterr().err
    assert main([str(tmp_path / "none.ova")]) == 1
    assert "What to do" in capsys.readouterr().err


@pytest.mark.parametrize("reader", READERS, ids=_name)
def test_importers_take_a_signed_one(reader: Reader, signed: Path) -> None:
    assert reader(read_members(signed)).name == "pacs-appliance"


def test_the_signature_is_proven_by_its_own_certificate_and_by_its_ca(signed: Path, keys: Path) -> None:
    assert "says the OVA" in verify(signed)[0]
    for trusted in ("signer.pem", "ca.pem"):
        assert verify(signed, read_certificates(keys / trusted))[0] == "signature: CN=Release,O=Example Hospital"


def test_openssl_finds_it_good(signed: Path, tmp_path: Path) -> None:
    """The signature by the tool that everybody has: DSP0243 5.1 as ovftool writes it."""
    members = read_members(signed)
    cert, listing = members[_suffix(members, ".cert")], members[_suffix(members, ".mf")]
    head, _, pem = cert.partition(b"\n")
    assert head.startswith(f"SHA256({_suffix(members, '.mf')})= ".encode())
    for name, content in {"signature": bytes.fromhex(head.split(b"= ")[1].decode()), "mf": listing, "pem": pem}.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "key").write_text(_openssl("x509", "-in", tmp_path / "pem", "-noout", "-pubkey"))
    said = _openssl(
        "dgst", "-sha256", "-verify", tmp_path / "key", "-signature", tmp_path / "signature", tmp_path / "mf"
    )
    assert "Verified OK" in said


def test_a_signature_of_openssl_is_taken(unsigned: Members, keys: Path, tmp_path: Path) -> None:
    name = _suffix(unsigned, ".mf")
    (tmp_path / "mf").write_bytes(unsigned[name])
    digits = _openssl("dgst", "-sha256", "-sign", keys / "signer.key", "-hex", tmp_path / "mf").split("= ")[1].strip()
    cert = f"SHA256({name})= {digits}\n{(keys / 'signer.pem').read_text()}".encode()
    ordered = list(unsigned.items())
    ordered.insert(2, (name.replace(".mf", ".cert"), cert))
    assert "Example Hospital" in verify(_pack(dict(ordered), tmp_path / "x.ova"), read_certificates(keys / "ca.pem"))[0]


def test_who_is_not_trusted_and_what_is_not_signed(signed: Path, ova: Path, keys: Path) -> None:
    stranger = read_certificates(keys / "stranger.pem")
    with pytest.raises(BuildError, match="not who you trust"):
        verify(signed, stranger)
    with pytest.raises(BuildError, match="not signed"):
        verify(ova, stranger)


def test_a_forged_manifest_is_seen_by_its_signature(signed: Path, keys: Path, tmp_path: Path) -> None:
    """Descriptor and manifest changed together: only the signature tells."""
    members = read_members(signed)
    name = _suffix(members, ".ovf")
    forged = _listed({**members, name: members[name].replace(b"Medical", b"Radical")})
    with pytest.raises(BuildError, match="does not belong to this manifest"):
        verify(_pack(forged, tmp_path / "forged.ova"), read_certificates(keys / "ca.pem"))


def test_a_signed_one_with_the_certificate_of_another(signed: Path, keys: Path, tmp_path: Path) -> None:
    members = read_members(signed)
    name = _suffix(members, ".cert")
    forged = {**members, name: members[name].split(b"\n")[0] + b"\n" + (keys / "stranger.pem").read_bytes()}
    with pytest.raises(BuildError, match="does not belong"):
        verify(_pack(forged, tmp_path / "forged.ova"))


def test_a_signer_that_can_not_sign_is_refused_at_once(
    keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BuildError, match="does not begin with the certificate of that key"):
        read_signer(keys / "stranger.key", keys / "signer.pem")
    _openssl("ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", tmp_path / "ec.key")
    with pytest.raises(BuildError, match="no RSA key"):
        read_signer(tmp_path / "ec.key", keys / "signer.pem")
    with pytest.raises(BuildError, match="can't be read"):
        read_signer(tmp_path / "none.key", keys / "signer.pem")
    monkeypatch.setenv("PACS_OVA_KEY", str(keys / "signer.key"))
    monkeypatch.delenv("PACS_OVA_CERTIFICATE", raising=False)
    with pytest.raises(BuildError, match="one half"):
        signer_of_environment()
    monkeypatch.setenv("PACS_OVA_CERTIFICATE", str(keys / "signer.pem"))
    assert (found := signer_of_environment())
    assert "Example Hospital" in found.name
    monkeypatch.delenv("PACS_OVA_KEY")
    monkeypatch.delenv("PACS_OVA_CERTIFICATE")
    assert signer_of_environment() is None
