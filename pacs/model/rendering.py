"""A frame as a picture that a browser shows: modality and VOI transformations, palettes, colors, a part of it, a size.

PS3.18 8.3.5.1, PS3.3 C.11.1 and C.11.2. What is asked for stands before what the object says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.uid import UID

from pacs.errors import CannotUnderstand, UsageError
from pacs.model import codec
from pacs.model.dataset import EXPLICIT_VR_LITTLE_ENDIAN

#: The longest edge of a picture that is made larger [pixels].
EDGE_MAX = 8192
FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
#: Media type → Pillow's name.
FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG", "image/gif": "GIF"}
Pixels = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Window:
    """Which values become gray (PS3.3 C.11.2.1.2, C.11.2.1.3)."""

    center: float
    width: float
    function: str = "LINEAR"

    def __post_init__(self) -> None:
        if self.function not in FUNCTIONS:
            raise UsageError(f"A window's function is one of {', '.join(FUNCTIONS)}.")
        if not (math.isfinite(self.center) and math.isfinite(self.width)) or self.width < 1e-9:
            raise UsageError("A window is a center and a width above 0.")


@dataclass(frozen=True)
class Viewport:
    """The size that a picture shall fit in [pixels], and the part of the image that it shows (x, y, width, height);
    None: all of it. A negative width or height mirrors it."""

    width: int | None = None
    height: int | None = None
    region: tuple[float, float, float, float] | None = None


def decode_frame(frame: bytes, transfer_syntax_uid: str, pixel_module: dict[str, Any], raw: bool) -> Pixels:
    """The pixels of an encoded frame. raw: as the encoding holds them; else color is RGB.

    Raise CannotUnderstand if there is no codec for it, or it fails.
    """
    is_native = transfer_syntax_uid in codec.NATIVE
    ds = Dataset()
    for keyword, value in pixel_module.items():
        setattr(ds, keyword, value)
    ds.NumberOfFrames = 1
    ds.PixelData = frame if is_native else encapsulate([frame])
    ds["PixelData"].VR = "OW" if is_native and int(pixel_module.get("BitsAllocated", 8)) > 8 else "OB"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(EXPLICIT_VR_LITTLE_ENDIAN if is_native else transfer_syntax_uid)
    if not is_native and not codec.may_become(transfer_syntax_uid, EXPLICIT_VR_LITTLE_ENDIAN):
        raise CannotUnderstand("There is no codec that decodes this object's frames.")
    try:
        array, _module = get_decoder(ds.file_meta.TransferSyntaxUID).as_array(ds, index=0, raw=raw)
    except Exception as error:  # codecs raise what they like
        raise CannotUnderstand(f"The frame cannot be decoded ({type(error).__name__}).") from error
    return array


def render(pixels: Pixels, ds: Dataset, window: Window | None = None, viewport: Viewport | None = None) -> Image.Image:
    """Pixels, color as RGB, as a picture of 8 bits a sample. ds: what the object says of its pixels."""
    try:
        photometric = str(ds.get("PhotometricInterpretation", "MONOCHROME2"))
        if photometric == "PALETTE COLOR":
            shown = _eight_bits(
                apply_color_lut(pixels, ds), 16 if int(ds.RedPaletteColorLookupTableDescriptor[2]) > 8 else 8
            )
        elif pixels.ndim == 3:
            shown = _eight_bits(pixels, int(ds.get("BitsStored", 8)))
        else:
            shown = _gray(pixels, ds, window, photometric == "MONOCHROME1")
        picture = Image.fromarray(shown)
    except (AttributeError, KeyError, ValueError, TypeError, IndexError, NotImplementedError) as error:
        raise CannotUnderstand(f"The object cannot be shown as a picture ({type(error).__name__}).") from error
    return _placed(picture, viewport) if viewport is not None else picture


def encode(picture: Image.Image, media_type: str, quality: int = 90) -> bytes:
    """A picture's file."""
    buffer = BytesIO()
    options = {"quality": quality} if media_type == "image/jpeg" else {}
    picture.save(buffer, FORMATS[media_type], **options)
    return buffer.getvalue()


def _eight_bits(pixels: Pixels, bits: int) -> Pixels:
    return (pixels >> (bits - 8) if bits > 8 else pixels).astype(np.uint8)


def _gray(pixels: Pixels, ds: Dataset, window: Window | None, is_inverse: bool) -> Pixels:
    values = np.asarray(apply_modality_lut(pixels, ds), dtype=np.float64)
    padding = ds.get("PixelPaddingValue")
    inside = pixels != padding if isinstance(padding, int) else np.ones(pixels.shape, bool)
    found = window or _own_window(ds)
    if found is None and "VOILUTSequence" in ds:
        values = np.asarray(apply_voi_lut(np.asarray(apply_modality_lut(pixels, ds)).astype(np.int64), ds), np.float64)
    if found is not None:
        shown = _windowed(values, found)
    else:
        known = values[inside] if inside.any() else values
        low, high = float(known.min()), float(known.max())
        shown = (values - low) / (high - low or 1.0)
    if is_inverse:
        shown = 1.0 - shown
    return (np.clip(shown, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def _own_window(ds: Dataset) -> Window | None:
    centers, widths = ds.get("WindowCenter"), ds.get("WindowWidth")
    if centers is None or widths is None:
        return None
    center, width = (each if isinstance(each, (int, float)) else each[0] for each in (centers, widths))
    function = str(ds.get("VOILUTFunction", "LINEAR"))
    if float(width) <= 0:
        return None
    return Window(float(center), float(width), function if function in FUNCTIONS else "LINEAR")


def _windowed(values: Pixels, window: Window) -> Pixels:
    """0 to 1."""
    if window.function == "SIGMOID":
        shown: Pixels = 1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - window.center) / window.width, -700, 700)))
        return shown
    if window.function == "LINEAR_EXACT" or window.width <= 1:
        return (values - window.center) / window.width + 0.5
    return (values - (window.center - 0.5)) / (window.width - 1.0) + 0.5


def _placed(picture: Image.Image, viewport: Viewport) -> Image.Image:
    if viewport.region is not None:
        x, y, width, height = viewport.region
        box = (int(x), int(y), int(x + abs(width)), int(y + abs(height)))
        if (
            box[0] < 0
            or box[1] < 0
            or box[2] > picture.width
            or box[3] > picture.height
            or box[0] >= box[2]
            or box[1] >= box[3]
        ):
            raise UsageError("The region lies outside of the image.")
        picture = picture.crop(box)
        if width < 0:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if height < 0:
            picture = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    if viewport.width is None and viewport.height is None:
        return picture
    fits = [
        asked / there
        for asked, there in ((viewport.width, picture.width), (viewport.height, picture.height))
        if asked is not None
    ]
    scale = min(fits)
    size = tuple(max(1, min(EDGE_MAX, round(each * scale))) for each in picture.size)
    return picture.resize((size[0], size[1]), Image.Resampling.BILINEAR)
