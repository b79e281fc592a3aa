"""The key of the recovery sheet: 160 random bits, written so that a person can type them from paper.

    K7QM2 0DXVA …   eight groups of four characters and a check character, and a ninth group that checks them all

The characters are Crockford's base32: no I, L, O or U; what looks like 1 or 0 is taken for it, small letters too. The
check character is a parity over GF(32): it finds every single wrong character of its group and every two that were
swapped, so that the group to look at again can be named.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field

from pacs.errors import UsageError

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LOOKS_LIKE = str.maketrans({"I": "1", "L": "1", "O": "0", "U": "V", "-": None, " ": None, "\n": None, "\t": None})
_KEY_BYTES = 20
_GROUPS, _DATA_CHARACTERS = 8, 4
GROUP_CHARACTERS = _DATA_CHARACTERS + 1
_CHARACTERS = (_GROUPS + 1) * GROUP_CHARACTERS


class MistypedKey(UsageError):
    """The key was not typed as it stands on the recovery sheet. Look at it again."""


@dataclass(frozen=True)
class MasterKey:
    """The key that unlocks an appliance's repositories."""

    secret: bytes = field(repr=False)

    @classmethod
    def make(cls) -> MasterKey:
        """A new one."""
        return cls(secrets.token_bytes(_KEY_BYTES))

    @classmethod
    def typed(cls, words: str) -> MasterKey:
        """The key that a person typed. Raise MistypedKey that names the groups that are wrong."""
        text = words.upper().translate(_LOOKS_LIKE)
        if strange := sorted({character for character in text if character not in _ALPHABET}):
            raise MistypedKey(f"{' '.join(map(repr, strange))} is no character of a key. Look at the sheet again.")
        if len(text) != _CHARACTERS:
            raise MistypedKey(
                f"A key has {_GROUPS + 1} groups of {GROUP_CHARACTERS} characters, {_CHARACTERS} in all; these are "
                f"{len(text)}. Look at the sheet again."
            )
        groups = [text[at : at + GROUP_CHARACTERS] for at in range(0, len(text), GROUP_CHARACTERS)]
        if wrong := [str(number) for number, group in enumerate(groups[:-1], 1) if _check(group[:-1]) != group[-1]]:
            raise MistypedKey(f"Group {', '.join(wrong)} of the key is mistyped. Look at the sheet again.")
        found = cls(_bytes_of("".join(group[:-1] for group in groups[:-1])))
        if found.groups()[-1] != groups[-1]:
            raise MistypedKey("The groups of the key are not in their order, or the last one is mistyped.")
        return found

    def groups(self) -> list[str]:
        """The key as it stands on the sheet: nine groups."""
        text = _characters_of(self.secret)
        data = [text[at : at + _DATA_CHARACTERS] for at in range(0, len(text), _DATA_CHARACTERS)]
        last = int.from_bytes(hashlib.sha256(b"pacs recovery key " + self.secret).digest()[:4], "big")
        return [*(group + _check(group) for group in data), _digits(last >> 7, GROUP_CHARACTERS)]

    @property
    def text(self) -> str:
        """The key as it is the password of `keyring.json.bin`: its groups with hyphens between them."""
        return "-".join(self.groups())

    @property
    def key_id(self) -> str:
        """What tells one sheet from another, and nothing of the key."""
        return hashlib.sha256(b"pacs recovery key id " + self.secret).hexdigest()[:8]


def _check(group: str) -> str:
    """The check character of a group: the sum of its values times powers of x, in GF(32) modulo x^5 + x^2 + 1."""
    total = 0
    for character in group:
        total = _times_x(total ^ _ALPHABET.index(character))
    return _ALPHABET[total]


def _times_x(value: int) -> int:
    value <<= 1
    return value ^ 0b100101 if value & 0b100000 else value


def _digits(value: int, count: int) -> str:
    return "".join(_ALPHABET[value >> 5 * place & 31] for place in reversed(range(count)))


def _characters_of(secret: bytes) -> str:
    return _digits(int.from_bytes(secret, "big"), len(secret) * 8 // 5)


def _bytes_of(text: str) -> bytes:
    value = 0
    for character in text:
        value = value << 5 | _ALPHABET.index(character)
    return value.to_bytes(_KEY_BYTES, "big")
