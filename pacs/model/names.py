"""Person names as they are compared: one form for what is stored and for what is asked (PS3.4 C.2.2.2.1, PS3.5 6.2.1).

Case, accents and width of letters do not count, nor which of the two kana a Japanese name is written in. A name's
component groups (alphabetic, ideographic, phonetic) are compared one by one: whoever asks for any of them finds the
name.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from pacs.model.text import LENGTH_MAX

#: Letters that Unicode does not decompose, as they are written without their stroke or ligature.
_LETTERS = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ħ": "h", "ı": "i", "ŧ": "t", "ŋ": "n"}
)
_ACCENTS = re.compile(r"[\u0300-\u036f]+")
_HIRAGANA_TO_KATAKANA = {code: code + 0x60 for code in range(0x3041, 0x3097)}
_SPACES = re.compile(r"\s+")
_AROUND_CARET = re.compile(r" ?\^ ?")
_WORD_ENDS = re.compile(r"[\s^=,.'’\-]+")


def fold(text: str) -> str:
    """Text as it is compared: without case, accents and differences of width, at most LENGTH_MAX characters."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    # Only the accents of alphabets go: the voicing marks of kana and the vowels of Indic scripts make other sounds.
    plain = _ACCENTS.sub("", decomposed).casefold().translate(_LETTERS)
    composed = unicodedata.normalize("NFC", plain).translate(_HIRAGANA_TO_KATAKANA)
    return _SPACES.sub(" ", composed).strip()[:LENGTH_MAX]


def group_key(group: str) -> str:
    """A component group as the index holds it: folded, and closed by a caret, so that `doe^*` finds a lone `Doe`."""
    folded = _AROUND_CARET.sub("^", fold(group)).rstrip("^ ")
    return f"{folded}^" if folded else ""


@lru_cache(maxsize=256)  # every object of a study names the same persons
def group_keys(name: str) -> tuple[str, ...]:
    """The keys of a name's component groups, each once."""
    return tuple(dict.fromkeys(key for key in map(group_key, name.split("=")) if key))


@lru_cache(maxsize=256)
def words(name: str) -> tuple[str, ...]:
    """The folded words of all groups, each once: what is compared by its sound."""
    return tuple(dict.fromkeys(word for word in _WORD_ENDS.split(fold(name)) if word))


def group_pattern(group: str) -> str:
    """What a query asks of a component group, for comparison with group_key: `*` is any run, `?` any one character.

    Empty for a group that asks nothing. A component that is left empty before others asks nothing of it.
    """
    pattern = _AROUND_CARET.sub("^", fold(group)).rstrip("^ ")
    if not pattern.strip("*^"):
        return ""
    if pattern.startswith("^"):
        pattern = f"*{pattern}"
    return pattern if pattern.endswith("*") else f"{pattern}^"


def ascii_pattern(pattern: str) -> str:
    """A pattern for names whose letters beyond ASCII are written by their numbers, as pacs_ascii in the schema does.

    It fits all that `pattern` fits, and perhaps more.
    """
    return "".join(f"x{ord(letter):x}" if not letter.isascii() else letter for letter in pattern.replace("?", "*"))


def literals(pattern: str) -> list[str]:
    """The runs of ASCII's letters and digits in a pattern: what an index of trigrams can look for."""
    return re.findall(r"[a-z0-9]+", pattern)
