"""Photos as pixels: every picture that RisKVA trains on, asks about or shows is opened here, so all are opened alike.

The rules: the EXIF orientation is applied once; transparency lies on white; CMYK, palette, grey and 16-bit pictures
become 8-bit RGB; of an animation the first frame counts. Colour profiles are not applied.
"""

from __future__ import annotations

import importlib.util
import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, UnidentifiedImageError

from riskva.data.conversation import Photo
from riskva.errors import ImageError

MAX_ASPECT_RATIO = 200
"""Qwen2.5-VL's resize rule refuses photos whose sides differ by more than this factor."""

_ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPS_SIDES = (5, 6, 7, 8)
# What Pillow's decoders raise on broken files, besides its own UnidentifiedImageError (an OSError).
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    RuntimeError,
    struct.error,
    zlib.error,
)
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"mif1")

# Photos up to Pillow's own limit are used, and beyond it are an ImageError, so its warning on the way tells nothing.
# For the whole process, because `catch_warnings` around each photo would not be safe among threads.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

if importlib.util.find_spec("pillow_heif"):
    import pillow_heif  # type: ignore[import-not-found, unused-ignore]

    pillow_heif.register_heif_opener()


def open_photo(photo: Photo) -> Image.Image:
    """The photo as RGB pixels the right way up, fully decoded.

    Raises `ImageError` with reason `image_missing`, `image_unreadable`, `image_truncated`, `image_unsupported`,
    `image_too_large` or `image_aspect`.
    """
    with _opened(photo) as image:
        return _turned(_as_rgb(image, photo), _orientation(image))


def photo_size(photo: Photo) -> tuple[int, int]:
    """(width, height) in pixels of what `open_photo` gives, from the file's header alone.

    Raises `ImageError` as `open_photo` does, but finds no damage behind the header.
    """
    with _opened(photo) as image:
        return _turned_size(image)


@dataclass(frozen=True)
class EncodedPhoto:
    """An encoded picture, its (width, height) in pixels, and whether the bytes are the original file's."""

    data: bytes = field(repr=False)
    size: tuple[int, int]
    is_unchanged: bool


def reencode(photo: Photo, max_image_size: tuple[int, int], image_quality: int) -> EncodedPhoto:
    """The photo fit for a data set: at most `max_image_size` (width, height) pixels, upright, and proven to decode.

    A JPEG that needs neither turning nor shrinking keeps its bytes. Anything else becomes an RGB JPEG of
    `image_quality` (1 to 100) without EXIF. Raises `ImageError` as `open_photo` does.
    """
    with _opened(photo) as image:
        orientation, size = _orientation(image), _turned_size(image)
        target = _fitted(size, max_image_size)
        keeps_bytes = image.format == "JPEG" and image.mode in ("RGB", "L") and orientation == 1 and target == size
        if not keeps_bytes:
            # The JPEG decoder can leave out detail that shrinking throws away; LANCZOS does the rest.
            image.draft("RGB", _unturned((3 * target[0] // 2, 3 * target[1] // 2), orientation))
        pixels = _as_rgb(image, photo)
    if keeps_bytes:
        return EncodedPhoto(photo.read(), size, is_unchanged=True)
    pixels = _turned(pixels.resize(_unturned(target, orientation), Image.Resampling.LANCZOS), orientation)
    return EncodedPhoto(_jpeg(pixels, image_quality), target, is_unchanged=False)


@contextmanager
def _opened(photo: Photo) -> Iterator[Image.Image]:
    """The image, header read and pixels not yet; what goes wrong inside the block becomes an `ImageError`."""
    name = photo.name or str(photo.path)
    try:
        with Image.open(photo.path or io.BytesIO(photo.read())) as image:
            _check_shape(image, name)
            yield image
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"{name}: no image file {photo.path}; see media_dir", "image_missing") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: not a picture that can be read{_hint(photo)}", "image_unreadable") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: more pixels than Pillow opens ({error}); shrink it", "image_too_large") from error
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno:
            raise ImageError(f"{name}: the file cannot be opened ({error.strerror})", "image_unreadable") from error
        reason = "image_truncated" if "truncated" in str(error).lower() else "image_unreadable"
        raise ImageError(f"{name}: the picture does not decode ({error}); replace the file", reason) from error


def _check_shape(image: Image.Image, name: str) -> None:
    width, height = image.size
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        message = f"{name}: {width} x {height} px, one side is over {MAX_ASPECT_RATIO} times the other; crop it"
        raise ImageError(message, "image_aspect")


def _hint(photo: Photo) -> str:
    start = photo.read()[:12]
    if not start:
        return ": the file is empty"
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS:
        return ": it is HEIF, as phones write it; install riskva[heif] or convert it to JPEG"
    return f"; it begins with {start!r}"


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8, as it stands before the pixels; 1 where it is absent, damaged or out of range.

    TIFF is 1: Pillow turns it while loading.
    """
    if image.format == "TIFF":
        return 1
    try:
        # The base class's method: the PNG one decodes all pixels in search of a trailing chunk.
        orientation = Image.Image.getexif(image).get(_ORIENTATION_TAG, 1)
    except _BROKEN:
        return 1  # viewers, too, show a photo with damaged EXIF as it is stored
    return orientation if orientation in _TURNS else 1


def _turned(pixels: Image.Image, orientation: int) -> Image.Image:
    return pixels.transpose(_TURNS[orientation]) if orientation in _TURNS else pixels


def _turned_size(image: Image.Image) -> tuple[int, int]:
    return _unturned(image.size, _orientation(image))


def _unturned(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """`size` on the other side of the turn; the same rule leads there and back."""
    return (size[1], size[0]) if orientation in _SWAPS_SIDES else size


def _as_rgb(image: Image.Image, photo: Photo) -> Image.Image:
    image.load()
    if image.mode == "F":
        message = f"{photo.name or photo.path}: floating-point pixels have no known white; save it as 8-bit"
        raise ImageError(message, "image_unsupported")
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit values at 255, which turns such a photo white.
        values = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return image.convert("RGB")


def _fitted(size: tuple[int, int], largest: tuple[int, int]) -> tuple[int, int]:
    """`size`, shrunk to lie within `largest` with its aspect ratio kept; never enlarged, never below one pixel."""
    scale = min(largest[0] / size[0], largest[1] / size[1], 1.0)
    return (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))


def _jpeg(pixels: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    # A fresh `info`, so that neither EXIF nor a profile of the original slips into the new file.
    pixels.info = {}
    pixels.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
