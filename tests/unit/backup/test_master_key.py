"""The key of the recovery sheet: what a person types wrong is found, and where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs.backup.keys import seal, unseal
from pacs.backup.master_key import MasterKey, MistypedKey
from pacs.errors import WrongKey
from pacs.storage import crypt
from pacs.storage.keyring import Keyring

SECRETS = st.binary(min_size=20, max_size=20)
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@given(SECRETS)
def test_what_is_typed_as_it_stands_is_the_key(secret: bytes) -> None:
    key = MasterKey(secret)
    assert MasterKey.typed(key.text) == key
    sloppy = key.text.lower().replace("-", " ").replace("0", "o").replace("1", "l")
    assert MasterKey.typed(f"  {sloppy}\n") == key
    assert repr(key) == "MasterKey()"


@given(SECRETS, st.integers(0, 7), st.integers(0, 4), st.integers(1, 31))
def test_every_wrong_character_is_found_and_its_group_named(secret: bytes, group: int, place: int, by: int) -> None:
    groups = MasterKey(secret).groups()
    wrong = ALPHABET[(ALPHABET.index(groups[group][place]) + by) % 32]
    groups[group] = groups[group][:place] + wrong + groups[group][place + 1 :]
    with pytest.raises(MistypedKey, match=f"Group {group + 1} of the key"):
        MasterKey.typed("-".join(groups))


@given(SECRETS, st.integers(0, 7), st.integers(0, 3))
def test_two_characters_that_were_swapped_are_found(secret: bytes, group: int, place: int) -> None:
    groups = MasterKey(secret).groups()
    text = groups[group]
    groups[group] = text[:place] + text[place + 1] + text[place] + text[place + 2 :]
    if groups[group] != text:
        with pytest.raises(MistypedKey, match=f"Group {group + 1} of the key"):
            MasterKey.typed(" ".join(groups))


@given(SECRETS, st.permutations(range(9)))
def test_groups_out_of_order_are_found(secret: bytes, order: list[int]) -> None:
    groups = MasterKey(secret).groups()
    typed = [groups[number] for number in order]
    if typed != groups:
        with pytest.raises(MistypedKey):
            MasterKey.typed("-".join(typed))


def test_too_little_and_what_is_no_character_are_told() -> None:
    key = MasterKey.make()
    with pytest.raises(MistypedKey, match="these are 44"):
        MasterKey.typed(key.text[:-1])
    with pytest.raises(MistypedKey, match=r"'\*' is no character"):
        MasterKey.typed("*" + key.text[1:])


def test_another_sheet_opens_nothing() -> None:
    keyring, key = Keyring.make(), MasterKey.make()
    sealed = seal(keyring, key)
    assert unseal(sealed, key) == keyring and keyring.objects_password.encode() not in sealed
    with pytest.raises(WrongKey, match="nothing was touched"):
        unseal(sealed, MasterKey.make())
    with pytest.raises(WrongKey):
        unseal(sealed[:-1] + b"\0" + sealed[-1:], key)


@pytest.mark.parametrize("size_bytes", [0, 1, 65535, 65536, 65537, 200_000])
def test_sizes_of_sealed_files(size_bytes: int) -> None:
    sealed = b"".join(crypt.seal([b"x" * size_bytes], b"k" * 32))
    assert len(sealed) == crypt.sealed_size(size_bytes) and crypt.plain_size(len(sealed)) == size_bytes
    assert b"".join(crypt.unseal([sealed[:9], sealed[9:]], b"k" * 32)) == b"x" * size_bytes


@pytest.mark.parametrize("size_bytes", [0, 31, 33, 48, crypt.HEADER_BYTES + crypt.SEALED_BLOCK_BYTES + 16])
def test_sizes_that_no_sealed_file_has(size_bytes: int) -> None:
    with pytest.raises(crypt.Unreadable):
        crypt.plain_size(size_bytes)
