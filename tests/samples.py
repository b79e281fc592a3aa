"""Sends sample studies, made from seeds, to an archive: `vagrant provision --provision-with samples`, or by hand.

    .venv/bin/python -m tests.samples --port 11112 --studies 10 --images 20

The same seeds make the same studies: sent twice, nothing new is kept. No patient in them is a person.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from io import BytesIO

import pydicom
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE

from tests.synthetic import ct_study


class NotTakenError(Exception):
    """The archive did not take the samples; the message says what it answered."""


def send_samples(host: str, port: int, called: str, calling: str, studies: int, images: int, size: int) -> int:
    """Send that many CT studies of `images` images, `size` by `size` pixels each; the number of images stored.

    Raise NotTakenError.
    """
    ae = AE(calling)
    ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    stored = 0
    for seed in range(1, studies + 1):
        assoc = ae.associate(host, port, ae_title=called)
        if not assoc.is_established:
            raise NotTakenError(f"{called} at {host}:{port} takes no association of {calling}: is that a known device?")
        try:
            for made in ct_study(seed, images, size, size):
                status = assoc.send_c_store(pydicom.dcmread(BytesIO(made.part10))).get("Status")
                if status != 0x0000:
                    raise NotTakenError(f"image {stored + 1} was answered with {status}")
                stored += 1
        finally:
            assoc.release()
    return stored


def main(arguments: Sequence[str] | None = None) -> int:
    """Send samples; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.samples", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=11112)
    parser.add_argument("--called", default="PACS", help="AE title of the archive")
    parser.add_argument("--calling", default="SAMPLES", help="AE title of the sender")
    parser.add_argument("--studies", type=int, default=10)
    parser.add_argument("--images", type=int, default=20, help="in each study")
    parser.add_argument("--size", type=int, default=512, help="rows and columns of an image")
    options = parser.parse_args(arguments)
    try:
        stored = send_samples(
            options.host, options.port, options.called, options.calling, options.studies, options.images, options.size
        )
    except NotTakenError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{stored} images of {options.studies} studies are stored")
    return 0


if __name__ == "__main__":
    sys.exit(main())
