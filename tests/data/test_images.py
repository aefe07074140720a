import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from riskva.data.conversation import Photo
from riskva.data.images import open_photo, photo_size, reencode
from riskva.errors import ImageError


def picture(width: int = 60, height: int = 40, mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def encoded(image: Image.Image, kind: str, **options: object) -> Photo:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return Photo(data=buffer.getvalue(), name=f"photo.{kind.lower()}")


def oriented(kind: str, orientation: int) -> Photo:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture(), kind, exif=exif)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once_as_pillow_applies_it(kind: str, orientation: int) -> None:
    photo = oriented(kind, orientation)
    assert photo.data is not None
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(photo.data))).convert("RGB")
    assert np.array_equal(np.asarray(open_photo(photo)), np.asarray(expected))
    assert photo_size(photo) == expected.size


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_orientation_out_of_range_turns_nothing(orientation: int) -> None:
    assert open_photo(oriented("JPEG", orientation)).size == (60, 40)


def test_damaged_exif_turns_nothing() -> None:
    photo = encoded(picture(), "JPEG", exif=b"Exif\0\0no tiff here")
    assert open_photo(photo).size == photo_size(photo) == (60, 40)


@pytest.mark.parametrize(
    ("mode", "kind"), [("L", "PNG"), ("1", "PNG"), ("P", "PNG"), ("CMYK", "JPEG"), ("RGBA", "PNG"), ("LA", "PNG")]
)
def test_every_mode_becomes_rgb(mode: str, kind: str) -> None:
    opened = open_photo(encoded(picture(mode=mode), kind))
    assert opened.mode == "RGB"
    assert opened.size == (60, 40)


def test_transparent_pixels_turn_white_and_half_transparent_ones_pale() -> None:
    image = Image.new("RGBA", (2, 1), (200, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 128))
    opened = open_photo(encoded(image, "PNG"))
    assert opened.getpixel((0, 0)) == (255, 255, 255)
    assert opened.getpixel((1, 0)) == (127, 127, 127)


def test_palette_transparency_turns_white() -> None:
    image = Image.new("P", (1, 1), 0)
    image.putpalette([10, 20, 30])
    assert open_photo(encoded(image, "PNG", transparency=0)).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bit_grey_keeps_its_shades() -> None:
    image = Image.fromarray(np.array([[0, 0x4000, 0x8000, 0xFFFF]], dtype=np.uint16))
    opened = open_photo(encoded(image, "PNG"))
    assert [opened.getpixel((x, 0)) for x in range(4)] == [(grey,) * 3 for grey in (0, 0x40, 0x80, 0xFF)]


def test_first_frame_of_an_animation_counts() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    photo = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert open_photo(photo).getpixel((0, 0)) == (255, 0, 0)


def bad_photos() -> dict[str, Photo]:
    whole = encoded(picture(), "JPEG").read()
    return {
        "image_truncated": Photo(data=whole[: len(whole) // 2], name="cut.jpg"),
        "image_unreadable": Photo(data=b"<html>not found</html>", name="page.jpg"),
        "image_aspect": encoded(picture(201, 1), "PNG"),
        "image_unsupported": encoded(Image.new("F", (4, 4)), "TIFF"),
        "image_missing": Photo(path=Path("nowhere/gone.jpg"), name="gone.jpg"),
    }


@pytest.mark.parametrize("reason", bad_photos())
def test_bad_photo_names_itself_and_the_reason(reason: str) -> None:
    photo = bad_photos()[reason]
    for use in (open_photo, lambda one: reencode(one, (64, 64), 85)):
        with pytest.raises(ImageError, match=photo.name) as caught:
            use(photo)
        assert caught.value.reason == reason


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning", "ignore:Corrupt EXIF data")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
def test_damage_of_any_kind_is_an_image_error_or_goes_unseen(kind: str) -> None:
    """Bytes are changed and files cut at random; a decoder's own exception must never come through."""
    whole, rng = encoded(picture(), kind).read(), np.random.default_rng(1)
    num_refused = 0
    for _ in range(100):
        damaged = np.frombuffer(whole, np.uint8).copy()
        damaged[rng.integers(0, min(len(damaged), 300), 4)] = rng.integers(0, 256, 4)
        photo = Photo(data=damaged[: rng.integers(1, 2 * len(damaged))].tobytes(), name="damaged")
        try:
            assert photo_size(photo) == open_photo(photo).size
        except ImageError:
            num_refused += 1
    assert num_refused > 20


def test_empty_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    with pytest.raises(ImageError, match="the file is empty"):
        open_photo(Photo(path=tmp_path / "empty.jpg"))


def test_too_many_pixels_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError) as caught:
        photo_size(encoded(picture(), "PNG"))
    assert caught.value.reason == "image_too_large"


def test_size_is_read_without_decoding() -> None:
    whole = encoded(picture(), "JPEG").read()
    assert photo_size(Photo(data=whole[: len(whole) - 300], name="cut.jpg")) == (60, 40)


def test_jpeg_that_fits_keeps_its_bytes() -> None:
    photo = encoded(picture(), "JPEG", quality=40)
    kept = reencode(photo, (60, 40), 85)
    assert kept.is_unchanged
    assert kept.data == photo.data
    assert kept.size == (60, 40)


@pytest.mark.parametrize(
    "photo",
    [
        encoded(picture(), "PNG"),
        encoded(picture(mode="CMYK"), "JPEG"),
        oriented("JPEG", 6),
        encoded(picture(600, 400), "JPEG"),
    ],
    ids=["png", "cmyk", "turned", "large"],
)
def test_reencoded_photo_is_a_plain_upright_jpeg_within_the_limits(photo: Photo) -> None:
    changed = reencode(photo, (90, 60), 85)
    result = Image.open(io.BytesIO(changed.data))
    assert not changed.is_unchanged
    assert (result.format, result.mode, result.size) == ("JPEG", "RGB", changed.size)
    assert result.size[0] <= 90
    assert result.size[1] <= 60
    assert not result.getexif()


@pytest.mark.parametrize(
    ("orientation", "limits", "expected"),
    [(1, (30, 1000), (30, 20)), (1, (1000, 10), (15, 10)), (6, (20, 1000), (20, 30)), (6, (1000, 1000), (40, 60))],
)
def test_limits_are_for_the_upright_photo(orientation: int, limits: tuple[int, int], expected: tuple[int, int]) -> None:
    assert reencode(oriented("JPEG", orientation), limits, 85).size == expected


def test_shrinking_a_smooth_photo_keeps_its_colours() -> None:
    ramp = np.linspace(0, 255, 1600, dtype=np.uint8)
    image = Image.fromarray(np.repeat(np.stack([ramp, ramp[::-1], ramp], -1)[None], 800, 0))
    result = Image.open(io.BytesIO(reencode(encoded(image, "JPEG", quality=95), (200, 200), 95).data))
    expected = np.asarray(image.resize((200, 100), Image.Resampling.LANCZOS), dtype=int)
    # Worst case measured: 3 grey levels, from JPEG's own rounding.
    assert np.abs(np.asarray(result, dtype=int) - expected).max() <= 5


def test_a_name_that_is_too_long_is_an_error_of_that_photo(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be opened") as caught:
        open_photo(Photo(path=tmp_path / ("长" * 100), name="long.jpg"))
    assert "long.jpg" in str(caught.value)


def test_a_large_photo_is_used_without_a_warning(tmp_path: Path) -> None:
    assert Image.MAX_IMAGE_PIXELS is not None
    header = struct.pack(">IIBBBBB", 10_000, Image.MAX_IMAGE_PIXELS // 10_000 + 1, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    path = tmp_path / "large.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", len(header))
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + struct.pack(">I4s", 0, b"IDAT")
    )
    code = (
        "import sys, pathlib; from riskva.data.images import photo_size; from riskva.data.conversation import Photo; "
        "print(photo_size(Photo(path=pathlib.Path(sys.argv[1]))))"
    )
    # A process of its own: pytest would catch the warning.
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("(10000, ")
    assert run.stderr == ""
