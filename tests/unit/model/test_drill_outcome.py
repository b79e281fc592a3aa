"""What a drill found, in words."""

from __future__ import annotations

from dataclasses import asdict

from pacs.model.drill_outcome import DrillOutcome, words_of


def test_words() -> None:
    found = DrillOutcome(known=1_234_567, sampled=400, differ=0)
    assert found.words == "1.2 million objects known, 400 sampled, 0 differ"
    assert words_of(asdict(found)) == found.words
    assert words_of({}) == "0 objects known, 0 sampled, 0 differ"
    assert DrillOutcome(known=12_345).words.startswith("12,345 objects known")


def test_what_proves_a_restore() -> None:
    assert DrillOutcome().is_proven
    assert not DrillOutcome(differ=1).is_proven
    assert not DrillOutcome(problems=["x"]).is_proven
    assert not DrillOutcome(error="x").is_proven
