"""What stays of a text that may have been typed by anybody: only words that are known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pacs.model.redaction import Redactor, Vocabulary, learn

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
KNOWN = learn(
    ["Young studies are not moved. It will wait for the tier1 volume", "association rejected", "at %s: TLS of PACS"],
    ["StoreFailed", "_begin_run"],
)


@pytest.fixture
def redactor() -> Redactor:
    return Redactor(KNOWN, NOW, key=b"not by luck")


def test_words_are_learnt_with_the_places_of_their_capitals() -> None:
    assert learn(["Send it again. TLS, für Curie"]) == Vocabulary(
        frozenset({"it", "again", "TLS", "Curie"}), frozenset({"Send"})
    )


@pytest.mark.parametrize(
    "text",
    [
        "association rejected, 12 studies, 10.5 volume? at 10:30 of 10:30:59: 0xA700",
        "Young studies are not moved: wait for TLS",
        f"at {NOW:%Y-%m-%d %H:%M}: tier1",
        f"{NOW - timedelta(days=300):%Y-%m-%dT%H:%M:%S.%fZ} StoreFailed _begin_run sda1 nvme0n1p2 20ms",
    ],
)
def test_what_is_known_stays(redactor: Redactor, text: str) -> None:
    assert redactor.text(text) == text


@pytest.mark.parametrize(
    "secret",
    [
        "Quirina", "YOUNG", "Zwötterhagen", "山田", "Łyszczyński", "ZQX4711", "1.2.840.113619.2.55.3", "12.11.1931",
        "1931-11-12", "11/12/1931", "19311112", "10.20.30.40", "1931-11-12 10:30", "12345", "4711998877",
        "e\u0301tude", "\udcff\udcfe", "\x1b[31mred", "fe80::1ff", "a3f49c2be1", "Smith-Jones",
    ],
)  # fmt: skip
@pytest.mark.parametrize("around", ["{}", "association rejected {} at", "calling_ae={}", "('{}')", "Young^{}", "\\{}"])
def test_nothing_else_does(redactor: Redactor, secret: str, around: str) -> None:
    shown = redactor.text(around.format(secret))
    assert shown.isascii()
    for piece in filter(None, "".join(c if c.isalnum() else " " for c in secret).split()):
        assert len(piece) < 3 or piece not in shown, shown
    assert secret not in shown


def test_a_known_word_is_a_name_where_a_name_stands(redactor: Redactor) -> None:
    assert "Young" not in redactor.text("association rejected for Young")
    for name in ("Young^will", "will^Young", "tier1^", "^association"):
        assert not any(word in redactor.text(name) for word in ("Young", "will", "tier1", "association"))


def test_a_word_is_the_same_in_one_bundle_and_another_in_the_next(redactor: Redactor) -> None:
    assert redactor.text("Curie at Curie") == f"{redactor.pseudonym('Curie')} at {redactor.pseudonym('Curie')}"
    assert redactor.pseudonym("Curie") != redactor.pseudonym("Curie2")
    assert redactor.pseudonym("Curie") != Redactor(KNOWN, NOW).pseudonym("Curie")


def test_values_keep_their_form(redactor: Redactor) -> None:
    value = {"volume": [1, 2.5, None, True, "Curie"], "Curie": NOW, "at": ("tier1",)}
    name = redactor.pseudonym("Curie")
    assert redactor.value(value) == {
        "volume": [1, 2.5, None, True, name], name: NOW.isoformat(), "at": ["tier1"],
    }  # fmt: skip
