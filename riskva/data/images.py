"""Photos as pixels: every picture that RisKVA trains on, asks about or shows is opened here, so all are opened alike.

The rules: the EXIF orientation is applied once; transparency lies on white; CMYK, palette, grey and 16-bit pictures
become 8-bit RGB; of an animation the first frame counts. Colour profiles are not applied. A JPEG may have other data
behind its end marker (phones put videos there); one without the marker counts as truncated, as nothing then tells
whether its last rows are the photo's or a decoder's guess, though viewers show it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import stat
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
_UNSUPPORTED = {
    "F": "floating-point pixels have no known white",
    "LAB": "Lab colours are not for Pillow to convert",
}
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
_SIGNATURE_BYTES = 12
# Pillow's JPEG decoder shrinks by 2, 4 or 8. To this multiple of the wanted size, not less: at 1 to 1.2 times it is a
# third faster but blurs (37 to 42 dB against a full decode, where 1.5 times keeps 46 dB or more), and a hairline crack
# is a pixel wide. Photos of 12 megapixels and 1,024 pixels come out the same: by 2 either way.
_DRAFT_SHARE = 1.5
# BICUBIC takes 0.7 of LANCZOS' time and is what Qwen2.5-VL's own processor shrinks with. Filter and draft together keep
# 46 to 53 dB against a full decode and LANCZOS, where JPEG at quality 85 keeps 36 to 46 dB: 0.3 dB less after both.
_FILTER = Image.Resampling.BICUBIC
# Where no decoder could shrink (PNG, HEIC), whole blocks are averaged first, down to no less than this multiple.
_BLOCK_SHARE = 1.5
# The hash sees 64 x 64 grey pixels and keeps the signs of their 16 x 16 slowest waves.
_HASH_SIDE = 16
_THUMBNAIL_QUALITY = 80
_HASHED_PIXELS = 4 * _HASH_SIDE

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


def in_memory(photo: Photo) -> Photo:
    """The same photo with its encoded bytes read, so that no file is opened again.

    Raises `ImageError` as `open_photo` does when they cannot be read.
    """
    if photo.data is not None:
        return photo
    with _its_errors(photo):
        return Photo(data=photo.read(), name=_name(photo))


@dataclass(frozen=True)
class EncodedPhoto:
    """An encoded picture, its (width, height) in pixels, and whether the bytes are the original file's.

    `perceptual_hash` (64 hex digits) is nearly the same for pictures that look the same; `sha256` (64 hex digits) is
    that of `data`.
    """

    data: bytes = field(repr=False)
    size: tuple[int, int]
    is_unchanged: bool
    perceptual_hash: str
    sha256: str


def reencode(photo: Photo, max_image_size: tuple[int, int], image_quality: int) -> EncodedPhoto:
    """The photo fit for a data set: at most `max_image_size` (width, height) pixels, upright, and proven to decode.

    A JPEG that needs neither turning nor shrinking keeps its bytes. Anything else becomes an RGB JPEG of
    `image_quality` (1 to 100) without EXIF; the same file always gives the same bytes. The file is read once. Raises
    `ImageError` as `open_photo` does.
    """
    whole = in_memory(photo)
    with _opened(whole) as image:
        orientation, size = _orientation(image), _turned_size(image)
        target = _fitted(size, max_image_size)
        _check_shape(target, _name(whole))  # rounding to whole pixels may have made it narrower
        if image.format == "JPEG" and image.mode in ("RGB", "L") and orientation == 1 and target == size:
            # Proof enough: at any scale, and in grey, libjpeg reads every byte. It only leaves out arithmetic.
            image.draft("L", (_HASHED_PIXELS, _HASHED_PIXELS))
            image.load()
            return _encoded(whole.read(), size, image, is_unchanged=True)
        image.draft("RGB", _unturned(_times(target, _DRAFT_SHARE), orientation))
        pixels = _as_rgb(image, whole)
    pixels = pixels.resize(_unturned(target, orientation), _FILTER, reducing_gap=_BLOCK_SHARE)
    pixels = _turned(pixels, orientation)
    return _encoded(_jpeg(pixels, image_quality), target, pixels, is_unchanged=False)


def thumbnail(prepared: bytes, side: int) -> bytes:
    """A small JPEG of a prepared photo, at most `side` pixels wide and high."""
    with Image.open(io.BytesIO(prepared)) as image:
        image.draft("RGB", (side, side))
        small = image.convert("RGB")
    small.thumbnail((side, side))
    return _jpeg(small, _THUMBNAIL_QUALITY)


def _encoded(data: bytes, size: tuple[int, int], pixels: Image.Image, is_unchanged: bool) -> EncodedPhoto:
    return EncodedPhoto(data, size, is_unchanged, _perceptual_hash(pixels), hashlib.sha256(data).hexdigest())


def _perceptual_hash(pixels: Image.Image) -> str:
    """The 256-bit `phash` of upright pixels, whatever their number; `riskva.preparation.duplicates` says why this."""
    import imagehash

    # Averaging whole blocks first takes a fraction of the time, and does not tell a small copy from a large one.
    factor = min(pixels.size) // _HASHED_PIXELS
    small = pixels.reduce(factor) if factor > 1 else pixels
    bits = imagehash.phash(small, hash_size=_HASH_SIDE).hash
    return np.packbits(bits).tobytes().hex()  # as str() of an ImageHash, at a tenth of its cost


@contextmanager
def _opened(photo: Photo) -> Iterator[Image.Image]:
    """The image, header read and pixels not yet; what goes wrong inside the block becomes an `ImageError`."""
    with _its_errors(photo), Image.open(photo.path or io.BytesIO(photo.read())) as image:
        _check_shape(image.size, _name(photo))
        yield image


@contextmanager
def _its_errors(photo: Photo) -> Iterator[None]:
    """What goes wrong inside the block becomes an `ImageError` that names the photo."""
    name = _name(photo)
    try:
        if photo.path is not None and stat.S_ISFIFO(photo.path.stat().st_mode):  # it would be waited for without end
            raise ImageError(f"{name}: a pipe, no image file; name a file")
        yield
    except ImageError:
        raise
    except FileNotFoundError as error:
        hint = "; see media_dir" if photo.passed_over else ""  # only where there was more than one place to look
        raise ImageError(f"{name}: no image file {photo.path}{hint}", "image_missing") from error
    except UnidentifiedImageError as error:
        reason = "image_truncated" if _is_cut_short(photo) else "image_unreadable"
        raise ImageError(f"{name}: not a picture that can be read{_hint(photo)}", reason) from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: more pixels than Pillow opens ({error}); shrink it", "image_too_large") from error
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno:
            raise ImageError(f"{name}: the file cannot be opened ({error.strerror})", "image_unreadable") from error
        is_cut = "truncated" in str(error).lower() or _is_cut_short(photo)
        reason = "image_truncated" if is_cut else "image_unreadable"
        raise ImageError(f"{name}: the picture does not decode ({error}); replace the file", reason) from error


def _name(photo: Photo) -> str:
    return photo.name or str(photo.path or "a picture without a name")


def _check_shape(size: tuple[int, int], name: str) -> None:
    width, height = size
    if min(width, height) < 1:
        raise ImageError(f"{name}: {width} x {height} px, so there is no picture in it", "image_unreadable")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        message = f"{name}: {width} x {height} px, one side is over {MAX_ASPECT_RATIO} times the other; crop it"
        raise ImageError(message, "image_aspect")


def _hint(photo: Photo) -> str:
    start = _start(photo)
    if not start:
        return ": the file is empty"
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS and "HEIF" not in Image.OPEN:
        return ": it is HEIF, as phones write it; pip install pillow-heif, or convert it to JPEG"
    return f"; it begins with {start!r}" + (" and is cut short" if _is_cut_short(photo) else "")


def _start(photo: Photo) -> bytes:
    if photo.path is None:
        return photo.read()[:_SIGNATURE_BYTES]
    with photo.path.open("rb") as stream:
        return stream.read(_SIGNATURE_BYTES)


def _is_cut_short(photo: Photo) -> bool:
    """Whether a WebP, HEIC or AVIF file is shorter than it says: their decoders do not tell that from other damage."""
    start = _start(photo)
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return len(photo.read()) < 8 + int.from_bytes(start[4:8], "little")
    if start[4:8] != b"ftyp":
        return False
    data, end = photo.read(), 0
    while end <= len(data) - 8:
        length = int.from_bytes(data[end : end + 4], "big")
        if length < 8:  # 0: up to the file's end; 1: a length that photos do not need
            return False
        end += length
    return end > len(data)


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
    if image.mode in _UNSUPPORTED:
        raise ImageError(f"{_name(photo)}: {_UNSUPPORTED[image.mode]}; save it as 8-bit RGB", "image_unsupported")
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit values at 255, which turns such a photo white.
        values = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return image.convert("RGB")


def _times(size: tuple[int, int], factor: float) -> tuple[int, int]:
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _fitted(size: tuple[int, int], largest: tuple[int, int]) -> tuple[int, int]:
    """`size`, shrunk to lie within `largest` with its aspect ratio kept; never enlarged, never below one pixel."""
    scale = min(largest[0] / size[0], largest[1] / size[1], 1.0)
    return _times(size, scale)


def _jpeg(pixels: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    # A fresh `info`, so that neither EXIF nor a profile of the original slips into the new file.
    pixels.info = {}
    pixels.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
