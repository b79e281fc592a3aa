"""The audit log's chain: every line follows from the one before, every batch from the batches before.

A line is `{"c":"<16 hex>",<rest>`: c is the beginning of the SHA-256 of the c before and of the rest, so that what was
changed in a line shows at that line. A seal is a line that ends a batch: its `head` is the SHA-256 of the head before,
of all lines of the batch and of what the seal says of itself. Who changes a line and makes everything after it anew
gets another head: it is found by whoever kept the head elsewhere, or by the signature on it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

#: Before the first line, and the first batch.
FIRST_CHECK, FIRST_HEAD = "0" * 16, "0" * 64
_START, _END = b'{"c":"', b'",'
_REST_AT = len(_START) + 16 + len(_END)


@dataclass(frozen=True)
class Head:
    """The head after a batch: the number of the seal's line, and the digest of all up to there."""

    number: int
    digest: str

    def __str__(self) -> str:
        return f"{self.number}:{self.digest}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """From what `str` gives. Raise ValueError."""
        number, _, digest = text.strip().partition(":")
        if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise ValueError(text)
        return cls(int(number), digest)


#: Whether a signature (base64) of a head is right.
VerifySignature = Callable[[Head, str], bool]


@dataclass(frozen=True)
class Fault:
    """The first line that is not as it was written. number: the line's; where: segment and line in it."""

    number: int
    where: str
    problem: str


@dataclass
class Verified:
    """What a look at the whole chain found."""

    lines: int = 0
    first: int = 0
    last: int = 0
    head: Head | None = None
    unsealed: int = 0
    signed: int = 0
    fault: Fault | None = None
    #: Heads that are known from elsewhere and were met.
    met: list[Head] = field(default_factory=list)


def line_of(number: int, check_before: str, values: Mapping[str, Any]) -> tuple[bytes, str]:
    """A line with its newline, and its check value."""
    text = json.dumps({"n": number, **values}, separators=(",", ":"), ensure_ascii=False)
    rest = text[1:].encode("utf-8", "replace") + b"\n"
    check = _check(check_before, rest)
    return _START + check.encode() + _END + rest, check


def parsed(line: bytes) -> dict[str, Any] | None:
    """A line's values; None if it is none."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("n"), int) and line.startswith(_START) else None


def digest_of(head_before: str, lines: Iterable[bytes], seal: Mapping[str, Any]) -> str:
    """The head after a batch of lines whose seal says `n`, `at`, `first` and `last`."""
    digest = hashlib.sha256(head_before.encode() + b"\n")
    for line in lines:
        digest.update(line)
    return _finished(digest, seal)


def _finished(digest: Any, seal: Mapping[str, Any]) -> str:
    digest.update(f"{seal['n']} {seal['at']} {seal['first']} {seal['last']}\n".encode())
    return str(digest.hexdigest())


def _check(check_before: str, rest: bytes) -> str:
    return hashlib.sha256(check_before.encode() + b"\n" + rest).hexdigest()[:16]


class Chain:
    """Looks at a chain line by line, up to its first fault."""

    def __init__(self, heads: Collection[Head] = (), is_signed_by_us: VerifySignature | None = None) -> None:
        """heads: those that were kept elsewhere."""
        self.found = Verified()
        self._heads = {each.number: each for each in heads}
        self._is_signed_by_us = is_signed_by_us
        self._check, self._head, self._expected = FIRST_CHECK, FIRST_HEAD, 1
        self._batch: Any = None
        self._batch_first = 0
        self._starts_at_head = FIRST_HEAD
        self._expired: dict[int, str] = {}

    def run(self, lines: Iterable[tuple[str, bytes]]) -> Verified:
        """Look at all lines: (where it is, its bytes with the newline)."""
        waiting: tuple[str, bytes] | None = None
        try:
            for each in _and_none(lines):
                if waiting is not None:
                    self._next(waiting[0], waiting[1], each[1] if each else None)
                waiting = each
            self._end()
        except _Found as found:
            self.found.fault = found.fault
        return self.found

    def _next(self, where: str, line: bytes, after: bytes | None) -> None:
        values = parsed(line)
        if values is None:
            raise _Found(self._expected, where, "is no line of the log: it was changed")
        if not self.found.lines:
            self._begin(values)
        number = values["n"]
        follows = line[len(_START) : len(_START) + 16].decode("ascii", "replace") == _check(
            self._check, line[_REST_AT:]
        )
        if number != self._expected or not follows:
            raise _Found(*self._diagnose(where, number, after))
        if values.get("e") == "seal":
            self._seal(where, values)
        else:
            self._in_batch(number, line, values)
        self._check = line[len(_START) : len(_START) + 16].decode()
        self._expected = number + 1
        self.found.lines, self.found.last = self.found.lines + 1, number

    def _begin(self, values: Mapping[str, Any]) -> None:
        """The first line that is there: of the whole log, or the header of the oldest segment that is kept."""
        before = values.get("before")
        if values.get("e") == "segment" and isinstance(before, dict):
            self._check, self._head = str(before.get("c")), str(before.get("head"))
            self._expected = values["n"]
        self._starts_at_head, self.found.first = self._head, self._expected

    def _diagnose(self, where: str, number: int, after: bytes | None) -> tuple[int, str, str]:
        expected, following = self._expected, parsed(after) if after is not None else None
        next_number = following["n"] if following else None
        if number == expected - 1:
            return number, where, f"is there twice: one of the two lines {number} was inserted"
        if (next_number == expected and number != expected) or (next_number == number == expected):
            return number, where, f"was inserted before line {expected}"
        if number > expected:
            lost = f"line {expected} was" if number == expected + 1 else f"lines {expected} to {number - 1} were"
            return expected, where, f"is missing: {lost} removed, line {number} stands there"
        if number < expected:
            return number, where, f"stands where line {expected} must be: it was inserted, or put there from elsewhere"
        return number, where, "was changed (or the line before it, with its check value)"

    def _in_batch(self, number: int, line: bytes, values: Mapping[str, Any]) -> None:
        if self._batch is None:
            self._batch, self._batch_first = hashlib.sha256(self._head.encode() + b"\n"), number
        self._batch.update(line)
        self.found.unsealed += 1
        if values.get("e") == "log expired" and isinstance(values.get("head"), str):
            self._expired[int(values.get("last", 0))] = values["head"]

    def _seal(self, where: str, values: dict[str, Any]) -> None:
        number, first = values["n"], self._batch_first
        if self._batch is None or values.get("first") != first or values.get("last") != number - 1:
            raise _Found(number, where, "is a seal that does not say which lines it seals: it was changed")
        digest = _finished(self._batch, values)
        if digest != values.get("head"):
            raise _Found(
                first, where, f"to line {number - 1}: what stands there is not what was sealed in line {number}. They "
                "were changed, and their check values made anew",
            )  # fmt: skip
        known = self._heads.get(number)
        if known is not None:
            if known.digest != digest:
                raise _Found(
                    first, where, f"or one before it was changed, and all made anew: the head that was kept elsewhere "
                    f"is {known}, this one {digest[:16]}...",
                )  # fmt: skip
            self.found.met.append(known)
        if "sig" in values and self._is_signed_by_us is not None:
            if not self._is_signed_by_us(Head(number, digest), str(values["sig"])):
                raise _Found(number, where, "is a seal that was not signed with this appliance's key")
            self.found.signed += 1
        self._head, self._batch = digest, None
        self.found.head, self.found.unsealed = Head(number, digest), 0

    def _end(self) -> None:
        first = self.found.first
        # A kill in the middle of an expiry leaves some segments of those that it names.
        is_known = max(self._expired, default=0) >= first - 1
        if first > 1 and (not is_known or self._expired.get(first - 1, self._starts_at_head) != self._starts_at_head):
            raise _Found(
                1, "the beginning", f"to line {first - 1} are gone, and no line of the log says that they have expired",
            )  # fmt: skip
        later = sorted(number for number in self._heads if number > self.found.last)
        if later:
            raise _Found(
                self._expected, "the end", f"and all after it were cut off: a head of line {later[-1]} was kept "
                "elsewhere",
            )  # fmt: skip
        unmet = [each for each in self._heads.values() if each not in self.found.met and first <= each.number]
        if unmet:
            raise _Found(unmet[0].number, "the whole log", f"is no seal, and head {unmet[0]} was kept elsewhere")


class _Found(Exception):
    """A fault was found."""

    def __init__(self, number: int, where: str, problem: str) -> None:
        super().__init__(problem)
        self.fault = Fault(number, where, problem)


def _and_none(lines: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes] | None]:
    yield from lines
    yield None


def signed_text(head: Head) -> bytes:
    """What a seal's signature is of."""
    return f"pacs audit head 1\n{head}\n".encode()


def signature_text(signature: bytes) -> str:
    """A signature as a seal holds it."""
    return base64.b64encode(signature).decode()
