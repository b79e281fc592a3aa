"""Synthetic CT studies: the same bytes for the same seed, nobody's data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

_ROOT = "2.25.1234"


def ct_study(folder: Path, seed: int, instances: int, rows: int, columns: int) -> list[Path]:
    """Write a study of one series to folder; return its files."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed)
    files = []
    for number in range(1, instances + 1):
        ds = _head(seed, number)
        ds.Rows, ds.Columns = rows, columns
        ds.PixelData = noise.integers(0, 4096, (rows, columns), np.uint16).tobytes()
        files.append(folder / f"{number}.dcm")
        ds.save_as(files[-1], enforce_file_format=True)
    return files


def _head(seed: int, number: int) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = f"{_ROOT}.{seed}.1.{number}"
    ds.StudyInstanceUID = f"{_ROOT}.{seed}"
    ds.SeriesInstanceUID = f"{_ROOT}.{seed}.1"
    ds.Modality = "CT"
    ds.PatientName = f"Synthetic^Seed{seed}"
    ds.PatientID = f"SEED{seed}"
    ds.StudyDate, ds.StudyTime = "20260102", "030405"
    ds.InstanceNumber = number
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds
