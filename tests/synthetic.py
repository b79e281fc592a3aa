"""DICOM objects made from a seed: the same seed, the same bytes. Small unless asked for more."""

from __future__ import annotations

import random
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

_ROOT = "2.25.271828182845904523536"


@dataclass(frozen=True)
class SyntheticObject:
    """An encoded object: what a C-STORE sends."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    dataset: bytes
    part10: bytes

    def write(self, folder: Path) -> Path:
        """Write it as a Part 10 file."""
        path = folder / f"{self.sop_instance_uid}.dcm"
        path.write_bytes(self.part10)
        return path


def ct_dataset(seed: int, number: int = 1, rows: int = 64, columns: int = 64, series: int = 1) -> Dataset:
    """A CT image as a pydicom data set."""
    rng = random.Random(f"{seed}/{series}/{number}")
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = f"{_ROOT}.{seed}.{series}.{number}"
    ds.StudyDate, ds.StudyTime = f"2026{seed % 12 + 1:02d}{seed % 28 + 1:02d}", "101500"
    ds.ContentDate, ds.ContentTime = ds.StudyDate, ds.StudyTime
    ds.AccessionNumber = f"A{seed:08d}"[:16]
    ds.Modality = "CT"
    ds.ReferringPhysicianName = "Curie^Marie"
    ds.StudyDescription = f"Thorax {seed}"
    ds.SeriesDescription = f"Series {series}"
    ds.PatientName, ds.PatientID = f"Müller^Seed{seed}", f"P{seed}"
    ds.PatientBirthDate, ds.PatientSex = "19700101", "O"
    ds.StudyInstanceUID = f"{_ROOT}.{seed}"
    ds.SeriesInstanceUID = f"{_ROOT}.{seed}.{series}"
    ds.StudyID, ds.SeriesNumber, ds.InstanceNumber = str(seed % 10000), series, number
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = rows, columns
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    pixels = np.random.default_rng(rng.randrange(1 << 32)).integers(0, 4096, rows * columns, dtype="<u2")
    ds.add_new(0x7FE00010, "OW", pixels.tobytes())
    return ds


def encode(ds: Dataset, transfer_syntax_uid: str = ExplicitVRLittleEndian) -> SyntheticObject:
    """A data set as the bytes that a sender would put on the wire, and as a Part 10 file."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = transfer_syntax_uid
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    ds.file_meta = meta
    buffer = BytesIO()
    pydicom.dcmwrite(
        buffer,
        ds,
        implicit_vr=transfer_syntax_uid == ImplicitVRLittleEndian,
        little_endian=True,
        enforce_file_format=True,
    )
    part10 = buffer.getvalue()
    start = 144 + int.from_bytes(part10[140:144], "little")
    return SyntheticObject(
        str(ds.SOPClassUID),
        str(ds.SOPInstanceUID),
        str(ds.StudyInstanceUID),
        transfer_syntax_uid,
        part10[start:],
        part10,
    )


def ct_study(seed: int, instances: int, rows: int = 64, columns: int = 64) -> list[SyntheticObject]:
    """A study of CT images, in one series."""
    return [encode(ct_dataset(seed, number, rows, columns)) for number in range(1, instances + 1)]
