"""Text without anything a person typed: words that are known to be harmless stay, all else becomes a pseudonym.

An allow-list: a word stays if this program or the system's own programs may have said it (pacs/machine/vocabulary.py
learns which). A patient's name, an id, a UID, an AE title, a device's or a host's name is no such word, in whatever
encoding it stands; it becomes `[x:3fa91c]`, the same everywhere in one bundle and another in the next, so that lines
can be put together and nobody can find out what stood there.

What it does not promise: that a name which is an everyday word of ours (`Archive`) is hidden in every place. So a
capital is let stand only where we write one, and what stands beside a `^`, as parts of a name do, never.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

_TOKEN = re.compile(
    r"(?P<time>(?<![\w.])\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d(?::?\d\d)?)?(?![\w.]))"
    r"|(?P<status>\b0[xX][0-9A-Fa-f]{1,4}\b)"
    r"|(?P<number>(?<!\w)\d+(?:[.,:/\\-]\d+)*(?!\w))"
    r"|(?P<word>[^\W_]+)"
)
#: Numbers that say how much or when, of no more than four digits: an id, a date, an address or a UID is none of these.
_HARMLESS_NUMBER = re.compile(r"\d{1,4}|\d{1,4}\.\d{1,3}|\d{1,2}:\d\d(?::\d\d)?")
_WITH_UNIT = re.compile(r"\d{1,4}(?:us|ms|s|min|h|d|B|[kKMGT]i?B?)")
_DEVICE_NODE = re.compile(r"(?:[sv]d[a-z]|nvme\d{1,2}n\d{1,2}|loop\d{1,2}|md\d{1,3}|dm\d{1,3})(?:p?\d{1,2})?")
_KEPT = frozenset(" \n\t" + "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~" + "→×…‘’“”–—·≥≤│")
#: How old or how far ahead a moment may be and still be one of the machine's.
_OUR_TIMES = timedelta(days=400)


@dataclass(frozen=True)
class Vocabulary:
    """The words that stay: as they are, and those with a capital only where a sentence begins."""

    words: frozenset[str]
    first_words: frozenset[str]


def learn(texts: Iterable[str], identifiers: Iterable[str] = ()) -> Vocabulary:
    """The vocabulary of texts that somebody wrote into a program. Words that are not ASCII are never learnt."""
    words: set[str] = set()
    first_words: set[str] = set()
    for text in texts:
        for found in _TOKEN.finditer(text):
            word = found["word"]
            if word is None or not word.isascii() or word.isdigit():
                continue
            begins = word[0].isupper() and not word[1:].isupper() and _begins_sentence(text, found.start())
            (first_words if begins else words).add(word)
    for name in identifiers:
        words.update(found["word"] for found in _TOKEN.finditer(name) if found["word"])
    return Vocabulary(frozenset(words), frozenset(first_words))


@dataclass
class Redactor:
    """Takes out of texts and values what is not in the vocabulary. `now`: times far from it are not the machine's."""

    vocabulary: Vocabulary
    now: datetime
    #: Of this bundle alone, kept nowhere.
    key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def text(self, text: str) -> str:
        """A text with pseudonyms for all that is not known."""
        pieces, end = [], 0
        for found in _TOKEN.finditer(text):
            pieces += [_punctuation(text[end : found.start()]), self._token(text, found)]
            end = found.end()
        return "".join([*pieces, _punctuation(text[end:])])

    def value(self, value: Any) -> Any:
        """A value as JSON has it: numbers and truths stay, texts and the names of members go through `text`."""
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, datetime):
            return value.isoformat()
        if isinstance(value, Mapping):
            return {self.text(str(name)): self.value(each) for name, each in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(each) for each in value]
        return self.text(str(value))

    def pseudonym(self, text: str) -> str:
        """What stands for a text in this bundle."""
        digest = hmac.new(self.key, text.encode("utf-8", "surrogatepass"), hashlib.sha256)
        return f"[x:{digest.hexdigest()[:6]}]"

    def _token(self, text: str, found: re.Match[str]) -> str:
        token = found[0]
        if found["status"] is not None:
            return token
        if found["time"] is not None:
            return token if self._is_ours(token) else self.pseudonym(token)
        if found["number"] is not None:
            if _HARMLESS_NUMBER.fullmatch(token):
                return token
            return f"[{len(token)} digits]" if token.isascii() and token.isdigit() else self.pseudonym(token)
        return token if self._is_known(text, found) else self.pseudonym(token)

    def _is_known(self, text: str, found: re.Match[str]) -> bool:
        word = found[0]
        if "^" in (text[found.start() - 1 : found.start()], text[found.end() : found.end() + 1]):
            return False
        if word in self.vocabulary.words or _WITH_UNIT.fullmatch(word) or _DEVICE_NODE.fullmatch(word):
            return True
        return word in self.vocabulary.first_words and _begins_sentence(text, found.start())

    def _is_ours(self, moment: str) -> bool:
        try:
            found = datetime.fromisoformat(moment.replace(",", "."))
        except ValueError:
            return False
        return abs(found.replace(tzinfo=found.tzinfo or self.now.tzinfo) - self.now) < _OUR_TIMES


def _begins_sentence(text: str, start: int) -> bool:
    before = text[:start].rstrip(" \n\t`")
    return not before or before[-1] in ".:!?;→]"


def _punctuation(text: str) -> str:
    return "".join(each if each in _KEPT else "?" for each in text)
