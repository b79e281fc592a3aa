"""Names as they are compared."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs.model.names import ascii_pattern, fold, group_key, group_keys, group_pattern, words
from pacs.model.text import LENGTH_MAX


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("MÜLLER", "muller"),
        ("Łódź", "lodz"),
        ("Øvergård", "OVERGARD"),
        ("Nguyễn", "nguyen"),
        ("ÇELİK", "celik"),
        ("Yıldız", "yildiz"),
        ("Straße", "STRASSE"),
        ("ΣΙΓΜΑΣ", "σιγμας"),
        ("Ёлкин", "елкин"),
        ("ﾔﾏﾀﾞ", "やまだ"),
        ("ＹＡＭＡＤＡ", "yamada"),
        ("Mu\u0308ller", "Müller"),
        ("two   words", "Two Words"),
    ],
)
def test_equal_names(one: str, other: str) -> None:
    assert fold(one) == fold(other)


@pytest.mark.parametrize(("one", "other"), [("か", "が"), ("は", "ぱ"), ("muller", "mueller"), ("김", "기")])
def test_other_names(one: str, other: str) -> None:
    assert fold(one) != fold(other)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("Doe^Jane", ["doe^jane^"]),
        ("Doe ^ Jane^^", ["doe^jane^"]),
        ("Doe", ["doe^"]),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", ["yamada^tarou^", "山田^太郎^", "ヤマダ^タロウ^"]),
        ("=山田^太郎", ["山田^太郎^"]),
        ("Doe=DOE", ["doe^"]),
        ("^^=", []),
        ("", []),
    ],
)
def test_a_key_for_each_component_group(name: str, keys: list[str]) -> None:
    assert list(group_keys(name)) == keys


def test_words_of_all_groups() -> None:
    assert words("O'Neil-Smith^Pat, Dr=山田^太郎") == ("o", "neil", "smith", "pat", "dr", "山田", "太郎")


def fits(pattern: str, key: str) -> bool:
    expression = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(expression, key, re.DOTALL) is not None


@pytest.mark.parametrize(
    ("asked", "name", "found"),
    [
        ("Müller^*", "Muller^Jan", True),
        ("Müller^*", "Müller", True),
        ("muller^jan", "MÜLLER^JAN", True),
        ("muller^jan", "Müller^Jana", False),
        ("muller", "Müller^Jan", False),
        ("mul*", "Müller^Jan", True),
        ("^jan", "Müller^Jan", True),  # by the given name
        ("*^jan*", "Müller^Jana", True),
        ("^jan", "Jan^Müller", False),
        ("*jan", "Müller^Jan", True),
        ("M?ller^jan", "Müller^Jan", True),
        ("muller^jan^^", "Müller^Jan", True),
        ("doe^jane^^dr", "Doe^Jane", False),
    ],
)
def test_patterns(asked: str, name: str, found: bool) -> None:
    assert fits(group_pattern(asked), group_key(name)) == found


@pytest.mark.parametrize("asked", ["", "*", "**", "^", "^*", "*^*^*", " "])
def test_a_group_that_asks_nothing(asked: str) -> None:
    assert group_pattern(asked) == ""


@given(st.text(max_size=40))
def test_a_name_finds_itself(name: str) -> None:
    """The same function on both sides: a stored name asked for as it is printed is found."""
    if not set("*?=") & set(fold(name)):
        pattern = group_pattern(name)
        assert not pattern or fits(pattern, group_key(name)), name


@given(st.text(max_size=400))
def test_any_text_folds_to_what_an_index_takes(name: str) -> None:
    folded = fold(name)
    assert len(folded) <= LENGTH_MAX
    assert all(key.endswith("^") for key in group_keys(name))


@given(st.text(max_size=20), st.text(max_size=5))
def test_a_pattern_in_ascii_fits_all_that_the_pattern_fits(name: str, part: str) -> None:
    if part in name and not set("*?") & set(name):
        assert fits(ascii_pattern(f"*{part}*"), ascii_pattern(name))
