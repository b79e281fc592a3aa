"""Devices and those who wait to become one: accepted by one command, journalled first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pacs.archive import devices
from pacs.cli.instance import Instance
from pacs.errors import NotFound, UsageError
from pacs.index import devices as rows
from pacs.index import refusals
from pacs.index.devices import Device
from pacs.index.refusals import Refusal, RefusalKind

CT1 = Device("ct1", "CT1", "192.0.2.1", 11112)


def refuse(instance: Instance, kind: RefusalKind, address: str = "192.0.2.9", detail: str = "") -> int:
    """Record a refusal of CT1; return the number that it waits under."""
    refusals.record(
        instance.database, [Refusal(kind, "CT1", address, f"{kind}.", detail, called_ae="PACS", wanted=("CT", "MR"))]
    )
    return devices.pending(instance.database)[0].number


def accept(instance: Instance, number: int, **options: object) -> Device:
    return devices.accept(instance.database, instance.journal, number, **options)  # type: ignore[arg-type]


def test_who_was_not_known_is_accepted_by_one_command(instance: Instance) -> None:
    number = refuse(instance, RefusalKind.CALLING_AE)
    (waiting,) = devices.pending(instance.database)
    assert (waiting.calling_ae, waiting.address, waiting.count) == ("CT1", "192.0.2.9", 1)
    assert waiting.problems == ("AE title not known",)
    assert waiting.wanted == ("CT", "MR")
    assert accept(instance, number) == Device("ct1", "CT1", "192.0.2.9", 104)
    assert devices.pending(instance.database) == []
    assert [line["what"] for line in instance.journal.read()] == ["device add"]
    with pytest.raises(NotFound):
        accept(instance, number)


def test_a_known_device_elsewhere_gets_the_address_as_a_network(instance: Instance) -> None:
    devices.add_device(instance.database, instance.journal, CT1)
    number = refuse(instance, RefusalKind.ADDRESS)
    made = accept(instance, number, port=4242)
    assert made == replace(CT1, networks=("192.0.2.9/32",), port=4242)
    assert rows.list_devices(instance.database) == [made]


def test_who_calls_us_by_another_name_may_go_on_to(instance: Instance) -> None:
    refuse(instance, RefusalKind.CALLED_AE, detail="OLDPACS")
    number = refuse(instance, RefusalKind.CALLING_AE)
    (waiting,) = devices.pending(instance.database)
    assert waiting.count == 2
    assert accept(instance, number, name="ct 1").called_ae_titles == ("OLDPACS",)


def test_a_certificate_that_was_shown_is_bound(instance: Instance) -> None:
    number = refuse(instance, RefusalKind.TLS, detail="ab" * 32)
    assert accept(instance, number).tls_certificate_sha256 == "ab" * 32
    number = refuse(instance, RefusalKind.TLS, detail="no certificate")
    with pytest.raises(UsageError, match="would not help"):
        accept(instance, number)


def test_adding_a_device_by_hand_takes_it_off_the_list(instance: Instance) -> None:
    refuse(instance, RefusalKind.CALLING_AE)
    refuse(instance, RefusalKind.CALLING_AE, "192.0.2.10")
    devices.add_device(instance.database, instance.journal, replace(CT1, host="192.0.2.9"))
    assert [each.address for each in devices.pending(instance.database)] == ["192.0.2.10"]
    devices.change_device(instance.database, instance.journal, replace(CT1, networks=("192.0.2.0/24",)))
    assert devices.pending(instance.database) == []


def test_a_dismissed_caller_is_shown_on_request_only(instance: Instance) -> None:
    number = refuse(instance, RefusalKind.CALLING_AE)
    devices.dismiss(instance.database, instance.journal, number)
    refusals.record(instance.database, [Refusal(RefusalKind.CALLING_AE, "CT1", "192.0.2.9", "again")])
    assert devices.pending(instance.database) == []
    (waiting,) = devices.pending(instance.database, with_dismissed=True)
    assert waiting.is_dismissed
    assert accept(instance, number).name == "ct1"


def test_titles_and_names_are_one_devices_only(instance: Instance) -> None:
    def add(device: Device) -> Device:
        return devices.add_device(instance.database, instance.journal, device)

    add(replace(CT1, aliases=("CT1_STORE", "CT1", "CT1_STORE")))
    assert rows.list_devices(instance.database)[0].aliases == ("CT1_STORE",)
    other = Device("ct2", "CT2", "192.0.2.2", 104)
    for taken in (
        replace(other, name="ct1"),
        replace(other, ae_title="CT1_STORE"),
        replace(other, aliases=("CT1",)),
        replace(other, aliases=("CT1_STORE",)),
    ):
        with pytest.raises(UsageError):
            add(taken)
    add(other)
    with pytest.raises(UsageError):
        devices.change_device(instance.database, instance.journal, replace(other, aliases=("CT1",)))
    found = rows.device_by_ae_title(instance.database, "CT1_STORE")
    assert found is not None
    assert found.name == "ct1"
    assert len(list(instance.journal.read())) == 2, "what did not happen is not in the journal"


@pytest.mark.parametrize(
    "wrong",
    [
        {"host": "10.0.0.256"},
        {"host": "ct 1"},
        {"networks": ("192.0.2.0/33",)},
        {"networks": ("ct1",)},
        {"aliases": ("SEVENTEEN_LETTERS",)},
        {"called_ae_titles": ("BACK\\SLASH",)},
        {"default_character_set": "KLINGON"},
        {"pdu_size_bytes_max": 100},
        {"transfer_syntaxes": ("JPEG",)},
        {"associations_max": 0},
        {"tls_certificate_sha256": "zz"},
    ],
)
def test_what_cannot_be_is_refused(instance: Instance, wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        devices.add_device(instance.database, instance.journal, replace(CT1, **wrong))  # type: ignore[arg-type]
    assert list(instance.journal.read()) == []


def test_every_quirk_is_kept(instance: Instance) -> None:
    full = Device(
        "ct1", "CT1", "ct1.example.org", 104, ("192.0.2.0/24", "2001:db8::/32"), ("CT1B",), ("OLD",), "ISO 2022 IR 87",
        16384, ("1.2.840.10008.1.2.4.70",), "0f" * 32, 4, True,
    )  # fmt: skip
    devices.add_device(instance.database, instance.journal, full)
    assert rows.device_named(instance.database, "ct1") == full
    plain = replace(CT1, host="192.0.2.1")
    devices.change_device(instance.database, instance.journal, plain)
    assert rows.device_named(instance.database, "ct1") == plain
    with pytest.raises(NotFound):
        devices.change_device(instance.database, instance.journal, replace(plain, name="nobody"))
