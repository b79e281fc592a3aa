"""Which abstract syntaxes are storage, and which transfer syntaxes there are, against PS3.6 as pydicom and pynetdicom
have it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID, AllTransferSyntaxes
from pynetdicom import ALL_TRANSFER_SYNTAXES, sop_class

from pacs.model.uids import NON_PATIENT_SOP_CLASSES, TRANSFER_SYNTAXES, may_be_storage

NOT_STORAGE = {
    "1.2.840.10008.1.1", "1.2.840.10008.1.3.10", "1.2.840.10008.1.9", "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.2",
    "1.2.840.10008.3.1.2.3.3", "1.2.840.10008.5.1.1.1", "1.2.840.10008.5.1.1.9", "1.2.840.10008.5.1.1.33",
    "1.2.840.10008.5.1.4.31", "1.2.840.10008.5.1.4.1.2.1.1", "1.2.840.10008.5.1.4.1.2.2.3", "1.2.840.10008.1.40",
    "1.2.840.10008.5.1.4.1.1.200.4", "1.2.840.10008.5.1.4.1.1.200.6", "1.2.840.10008.5.1.4.1.1.201.2",
    "1.2.840.10008.5.1.4.1.1.201.5", "1.2.840.10008.5.1.4.1.1.201.6", "1.2.840.10008.5.1.4.34.6.1",
    "1.2.840.10008.1.42", "1.2.840.10008.3.1.1.1",
}  # fmt: skip


def test_every_storage_class_of_pynetdicom_is_storage() -> None:
    classes = {**sop_class._STORAGE_CLASSES, **sop_class._NON_PATIENT_OBJECT_CLASSES}
    assert len(classes) > 150
    assert not [name for name, uid in classes.items() if not may_be_storage(uid)]


def test_every_storage_class_of_the_dictionary_is_storage() -> None:
    named = {
        uid
        for uid, (name, kind, _info, _retired, _keyword) in UID_dictionary.items()
        if kind == "SOP Class" and name.removesuffix(" (Retired)").endswith("Storage") and "Directory" not in name
    }
    assert len(named) > 150
    assert not [UID(uid).name for uid in named if not may_be_storage(uid)]


@pytest.mark.parametrize("uid", sorted(NOT_STORAGE))
def test_what_the_standard_lists_as_something_else_is_not(uid: str) -> None:
    assert not may_be_storage(uid), UID(uid).name


def test_nothing_that_pynetdicom_serves_otherwise_is_storage() -> None:
    others = {
        **sop_class._QR_CLASSES, **sop_class._PRINT_MANAGEMENT_CLASSES, **sop_class._PROCEDURE_STEP_CLASSES,
        **sop_class._BASIC_WORKLIST_CLASSES, **sop_class._STORAGE_COMMITMENT_CLASSES, **sop_class._VERIFICATION_CLASSES,
        **sop_class._MEDIA_STORAGE_CLASSES, **sop_class._UNIFIED_PROCEDURE_STEP_CLASSES,
        **sop_class._PROTOCOL_APPROVAL_CLASSES, **sop_class._DEFINED_PROCEDURE_CLASSES,
    }  # fmt: skip
    assert not [name for name, uid in others.items() if may_be_storage(uid)]


def test_no_transfer_syntax_or_frame_of_reference_is_a_storage_class() -> None:
    for uid, (name, kind, *_rest) in UID_dictionary.items():
        if kind != "SOP Class":
            assert not may_be_storage(uid), name


def test_private_and_future_classes_are_taken_for_storage_and_rubbish_is_not() -> None:
    assert may_be_storage("1.2.392.200036.9116.7.8.1.1.1")  # a maker's private one
    assert may_be_storage("1.2.840.10008.5.1.4.1.1.999.9")
    assert not may_be_storage("")
    assert not may_be_storage("not a uid")


def test_every_transfer_syntax_is_taken() -> None:
    """But for live video (SMPTE), which is no encoding of a data set."""
    missing = [UID(uid).name for uid in (*AllTransferSyntaxes, *ALL_TRANSFER_SYNTAXES) if uid not in TRANSFER_SYNTAXES]
    assert not [name for name in missing if not name.startswith("SMPTE")]
    for uid in ("1.2.840.10008.1.2.2", "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.112", "1.2.840.10008.1.2.4.53"):
        assert uid in TRANSFER_SYNTAXES
    assert len(set(TRANSFER_SYNTAXES)) == len(TRANSFER_SYNTAXES)


def test_what_is_taken_does_not_depend_on_pynetdicom() -> None:
    """It adds to pydicom's table when it is imported; whoever imports us first must not find less."""
    alone = subprocess.run(
        [sys.executable, "-c", "from pacs.model.uids import *; import sys; assert 'pynetdicom' not in sys.modules;"
         "print(*sorted(TRANSFER_SYNTAXES), may_be_storage('1.2.840.10008.1.2.4.110'))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert alone.stdout.split() == [*sorted(TRANSFER_SYNTAXES), "False"]


def test_objects_of_no_patient_are_those_of_pynetdicom_and_more() -> None:
    """pynetdicom's list of the Non-Patient Object Storage service class (PS3.4 GG), and the protocols and inventories
    that PS3.3 gives no patient module."""
    table = set(sop_class._NON_PATIENT_OBJECT_CLASSES.values())
    assert table <= NON_PATIENT_SOP_CLASSES
