import hashlib
import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps, features

from riskva.data.conversation import Photo
from riskva.data.images import open_photo, photo_size, reencode, thumbnail
from riskva.errors import ImageError


def picture(width: int = 60, height: int = 40, mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def encoded(image: Image.Image, kind: str, **options: object) -> Photo:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return Photo(data=buffer.getvalue(), name=f"photo.{kind.lower()}")


def scene(width: int, height: int) -> Image.Image:
    """Soft light, hard edges, hairlines and fine grain, as photos have; noise alone would be all detail."""
    rng = np.random.default_rng(3)
    light = Image.fromarray(rng.integers(90, 230, (5, 6, 3), dtype=np.uint8))
    image = light.resize((width, height), Image.Resampling.BICUBIC)
    for _ in range(60):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        right, below = x + int(rng.integers(1, width // 6)), y + int(rng.integers(1, height // 50 + 2))
        image.paste(tuple(int(value) for value in rng.integers(0, 255, 3)), (x, y, right, below))
    image = image.filter(ImageFilter.GaussianBlur(0.7))
    pixels = np.asarray(image, dtype=np.float64) + rng.normal(0, 4, (height, width, 1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def decibels(one: Image.Image, other: Image.Image) -> float:
    """The peak signal-to-noise ratio of two images of one size and mode."""
    difference = np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    return float(10 * np.log10(255**2 / np.mean(difference**2)))


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> Photo:
    """A PNG put together by hand: what Pillow does not write, or would not want to."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return Photo(data=data, name="made.png")


def heic(orientation: int = 1, image: Image.Image | None = None) -> Photo:
    """As phones write it: the turn stands in the container, and in EXIF once more."""
    image, exif = image or picture(), Image.Exif()
    exif[0x0112] = orientation
    image.info["exif"] = exif.tobytes()
    return encoded(image, "HEIF", quality=95)


def oriented(kind: str, orientation: int) -> Photo:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture(), kind, exif=exif)


AVIF = pytest.param("AVIF", marks=pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", AVIF])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once_as_pillow_applies_it(kind: str, orientation: int) -> None:
    photo = oriented(kind, orientation)
    assert photo.data is not None
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(photo.data))).convert("RGB")
    assert np.array_equal(np.asarray(open_photo(photo)), np.asarray(expected))
    assert photo_size(photo) == expected.size


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_turned_once_though_its_exif_says_so_again(orientation: int) -> None:
    stored = Image.new("RGB", (64, 48), "white")
    stored.paste("red", (0, 0, 32, 24))
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = stored.copy()
    upright.info["exif"] = exif.tobytes()
    expected = ImageOps.exif_transpose(upright)
    photo = heic(orientation, stored)
    assert photo_size(photo) == open_photo(photo).size == expected.size
    # Worst cases measured: 58 and 34 dB, the codecs' loss; a turn too many or too few is below 10 dB.
    assert decibels(open_photo(photo), expected) > 50
    assert decibels(Image.open(io.BytesIO(reencode(photo, (64, 64), 95).data)), expected) > 30


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


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_sixteen_bit_tiff_of_either_byte_order_keeps_its_shades(order: str) -> None:
    mode = {"<u2": "I;16", ">u2": "I;16B"}[order]
    image = Image.frombytes(mode, (4, 1), np.array([0, 0x4000, 0x8000, 0xFFFF], dtype=order).tobytes())
    opened = open_photo(encoded(image, "TIFF"))
    assert [opened.getpixel((x, 0)) for x in range(4)] == [(grey,) * 3 for grey in (0, 0x40, 0x80, 0xFF)]


def test_sixteen_bit_colours_keep_their_shades() -> None:
    values = np.array([0, 0x40FF, 0x8000, 0xFFFF, 0x1234, 0], dtype=">u2")
    opened = open_photo(png(2, 1, 16, 2, b"\0" + values.tobytes()))
    assert [opened.getpixel((x, 0)) for x in range(2)] == [(0, 0x40, 0x80), (0xFF, 0x12, 0)]


def test_one_bit_is_black_and_white() -> None:
    image = Image.new("1", (2, 1), 0)
    image.putpixel((1, 0), 1)
    for kind in ("PNG", "BMP", "TIFF"):
        opened = open_photo(encoded(image, kind))
        assert [opened.getpixel((x, 0)) for x in range(2)] == [(0, 0, 0), (255, 255, 255)]


def test_grey_with_transparency_lies_on_white() -> None:
    image = Image.new("LA", (2, 1), (80, 0))
    image.putpixel((1, 0), (80, 255))
    opened = open_photo(encoded(image, "PNG"))
    assert [opened.getpixel((x, 0)) for x in range(2)] == [(255, 255, 255), (80, 80, 80)]


def test_colours_of_a_cmyk_jpeg_are_not_inverted() -> None:
    """Such a JPEG has Adobe's marker and, as that program wrote it, all four channels inverted."""
    photo = encoded(Image.new("RGB", (16, 16), (220, 60, 30)).convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in photo.read()
    result = Image.open(io.BytesIO(reencode(photo, (64, 64), 95).data))
    assert result.mode == "RGB"
    # Worst case measured: 1 grey level.
    assert np.abs(np.subtract(result.getpixel((8, 8)), (220, 60, 30))).max() <= 3


@pytest.mark.parametrize("kind", ["BMP", "PNG", "TIFF", "WEBP", "HEIF"])
def test_formats_that_tables_name_open_and_become_jpegs(kind: str) -> None:
    image = scene(320, 240)
    photo = encoded(image, kind, **({"quality": 95} if kind in ("WEBP", "HEIF") else {}))
    opened = open_photo(photo)
    # Worst cases measured: 34.6 dB (HEIC), then 32.7 dB (WebP); both halve the resolution of colours.
    assert np.array_equal(np.asarray(opened), np.asarray(image)) or decibels(opened, image) > 33
    made = reencode(photo, (320, 240), 95)
    assert not made.is_unchanged
    assert decibels(Image.open(io.BytesIO(made.data)), image) > 31


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_first_frame_of_an_animation_counts(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    photo = encoded(
        frames[0], kind, save_all=True, append_images=frames[1:], **({} if kind == "GIF" else {"duration": 9})
    )
    red, green, blue = open_photo(photo).getpixel((0, 0))
    assert red > 250
    assert max(green, blue) < 5


def test_of_a_phones_several_pictures_in_one_file_the_first_counts_alone() -> None:
    frames = [Image.new("RGB", (32, 24), colour) for colour in ("red", "blue")]
    photo = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert photo.read()[:3] == encoded(frames[0], "JPEG").read()[:3]
    made = reencode(photo, (64, 64), 85)
    result = Image.open(io.BytesIO(made.data))
    assert not made.is_unchanged
    assert (result.format, getattr(result, "n_frames", 1), len(made.data) < len(photo.read())) == ("JPEG", 1, True)
    assert np.abs(np.subtract(result.getpixel((9, 9)), (254, 0, 0))).max() <= 3


def bad_photos() -> dict[str, Photo]:
    whole = encoded(picture(), "JPEG").read()
    return {
        "image_truncated": Photo(data=whole[: len(whole) // 2], name="cut.jpg"),
        "image_unreadable": Photo(data=b"<html>not found</html>", name="page.jpg"),
        "image_aspect": encoded(picture(201, 1), "PNG"),
        "image_unsupported": encoded(Image.new("F", (4, 4)), "TIFF"),
        "image_too_large": png(60_000, 60_000, 8, 2, b""),
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


def test_lab_colours_are_refused_as_such() -> None:
    with pytest.raises(ImageError, match="Lab colours") as caught:
        open_photo(encoded(Image.new("LAB", (4, 4)), "TIFF"))
    assert caught.value.reason == "image_unsupported"


@pytest.mark.parametrize("size", [(0, 0), (0, 7), (7, 0)])
@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_picture_without_pixels_is_unreadable(kind: str, size: tuple[int, int]) -> None:
    at, layout = {"BMP": (18, "<ii"), "PNG": (16, ">II")}[kind]
    data = bytearray(encoded(picture(), kind).read())
    struct.pack_into(layout, data, at, *size)
    for use in (open_photo, photo_size, lambda one: reencode(one, (64, 64), 85)):
        with pytest.raises(ImageError, match="no-pixels") as caught:
            use(Photo(data=bytes(data), name="no-pixels"))
        assert caught.value.reason == "image_unreadable"


@pytest.mark.parametrize("use", [open_photo, photo_size, lambda one: reencode(one, (64, 64), 85)])
def test_folder_in_a_photos_place_is_unreadable(use: Callable[[Photo], object], tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be opened") as caught:
        use(Photo(path=tmp_path, name="folder.jpg"))
    assert caught.value.reason == "image_unreadable"


def test_heic_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    photo = heic()
    monkeypatch.delitem(Image.OPEN, "HEIF")
    monkeypatch.setattr(Image, "ID", [kind for kind in Image.ID if kind != "HEIF"])
    with pytest.raises(ImageError, match=r"pip install pillow-heif") as caught:
        reencode(photo, (64, 64), 85)
    assert caught.value.reason == "image_unreadable"


def test_too_many_pixels_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError) as caught:
        photo_size(encoded(picture(), "PNG"))
    assert caught.value.reason == "image_too_large"


def test_size_is_read_without_decoding() -> None:
    whole = encoded(picture(), "JPEG").read()
    assert photo_size(Photo(data=whole[: len(whole) - 300], name="cut.jpg")) == (60, 40)


KINDS_OF_JPEG = {
    "baseline": ("RGB", {}),
    "progressive": ("RGB", {"progressive": True}),
    "grey": ("L", {}),
    "grey, progressive": ("L", {"progressive": True}),
    "colour at full size": ("RGB", {"subsampling": 0}),
    "restart markers": ("RGB", {"restart_marker_rows": 1}),
}


@pytest.mark.parametrize("kind", KINDS_OF_JPEG)
def test_jpeg_cut_anywhere_is_found_as_a_full_decode_finds_it(kind: str) -> None:
    """The proof of a kept JPEG decodes an eighth of its pixels: the photo is large enough for that."""
    mode, options = KINDS_OF_JPEG[kind]
    whole = encoded(scene(640, 512).convert(mode), "JPEG", **options).read()
    assert reencode(Photo(data=whole, name="whole.jpg"), (640, 512), 85).is_unchanged
    cuts = {len(whole) * tenth // 10 for tenth in range(1, 10)} | {len(whole) - cut for cut in (1, 2, 3, 10, 100)}
    for cut in cuts:
        photo = Photo(data=whole[:cut], name="cut.jpg")
        for use in (open_photo, lambda one: reencode(one, (640, 512), 85), lambda one: reencode(one, (64, 64), 85)):
            with pytest.raises(ImageError) as caught:
                use(photo)
            assert caught.value.reason == "image_truncated"


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WEBP", "HEIF", AVIF])
def test_other_files_cut_anywhere_are_truncated(kind: str) -> None:
    whole = encoded(scene(320, 240), kind).read()
    for tenth in range(1, 10):
        with pytest.raises(ImageError) as caught:
            reencode(Photo(data=whole[: len(whole) * tenth // 10], name="cut"), (64, 64), 85)
        assert caught.value.reason == "image_truncated"


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "HEIF"])
def test_whole_file_with_a_broken_inside_is_not_called_truncated(kind: str) -> None:
    whole = bytearray(encoded(scene(320, 240), kind).read())
    whole[40:100] = b"\x5a" * 60
    with pytest.raises(ImageError) as caught:
        reencode(Photo(data=bytes(whole), name="broken"), (64, 64), 85)
    assert caught.value.reason == "image_unreadable"


@pytest.mark.parametrize("junk", [b"\0" * 4096, b"SEFT, a phone's own notes", b"\xff\xd8\xff\xe0 and so on"])
def test_what_follows_a_whole_jpeg_does_no_harm(junk: bytes) -> None:
    photo = Photo(data=encoded(picture(), "JPEG").read() + junk, name="longer.jpg")
    kept = reencode(photo, (60, 40), 85)
    assert (kept.is_unchanged, kept.data) == (True, photo.data)
    assert reencode(photo, (30, 20), 85).size == (30, 20)


def test_photos_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photo.jpg").write_bytes(encoded(picture(), "JPEG").read())
    reads: list[Path] = []

    def read(path: Path) -> bytes:
        reads.append(path)
        with path.open("rb") as stream:
            data = stream.read()
        path.unlink()
        return data

    monkeypatch.setattr(Path, "read_bytes", read)
    assert reencode(Photo(path=tmp_path / "photo.jpg", name="photo.jpg"), (60, 40), 85).is_unchanged
    assert len(reads) == 1


@pytest.mark.parametrize("limits", [(60, 40), (30, 20)])
def test_what_is_told_of_an_encoded_photo_is_true_and_the_same_each_time(limits: tuple[int, int]) -> None:
    made, again = (reencode(encoded(picture(), "JPEG"), limits, 85) for _ in range(2))
    assert made == again
    assert made.sha256 == hashlib.sha256(made.data).hexdigest()
    assert len(bytes.fromhex(made.perceptual_hash)) == 32


def test_one_photo_has_nearly_one_hash_however_it_is_stored() -> None:
    image = scene(800, 600)
    first = reencode(encoded(image, "JPEG", quality=92), (800, 600), 85)
    turned = Image.Exif()
    turned[0x0112] = 6
    stored = [
        reencode(encoded(image.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=turned), (800, 600), 85),
        reencode(encoded(image, "PNG"), (800, 600), 85),
        reencode(encoded(image, "JPEG", quality=92), (300, 300), 85),
        reencode(encoded(image.resize((1600, 1200)), "JPEG", quality=92), (800, 600), 85),
    ]
    assert first.is_unchanged
    for other in stored:
        differing = int(first.perceptual_hash, 16) ^ int(other.perceptual_hash, 16)
        # Worst case measured: 12 bits of 256.
        assert differing.bit_count() <= 24


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


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    ("size", "limit"), [((1600, 1200), 400), ((1600, 1200), 410), ((1640, 1230), 400), ((1600, 1200), 1024)]
)
def test_shrinking_is_as_good_as_a_full_decode_and_lanczos(size: tuple[int, int], limit: int, kind: str) -> None:
    """Sizes at which the decoder, or averaging, may halve or quarter the photo, and at which it just may not."""
    photo = encoded(scene(*size), kind, **({"quality": 95} if kind == "JPEG" else {}))
    made = Image.open(io.BytesIO(reencode(photo, (limit, limit), 100).data)).convert("L")
    expected = open_photo(photo).resize(made.size, Image.Resampling.LANCZOS).convert("L")
    # Worst case measured: 50.6 dB; a decoder that may halve to just the wanted size gives 41.7 dB. In grey, as JPEG
    # halves the resolution of colours whatever is done before.
    assert decibels(made, expected) > 48


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


def test_a_photo_that_shrinking_makes_too_narrow_is_refused() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (6000, 30)).save(buffer, "JPEG")  # 200 to 1; 1024 x 5 is 204.8 to 1
    with pytest.raises(ImageError, match="1024 x 5 px") as caught:
        reencode(Photo(data=buffer.getvalue(), name="strip.jpg"), (1024, 1024), 85)
    assert caught.value.reason == "image_aspect"


def test_a_thumbnail_is_small_and_shows_the_photo() -> None:
    pixels = Image.new("RGB", (800, 400), "navy")
    pixels.paste("orange", (400, 0, 800, 400))
    buffer = io.BytesIO()
    pixels.save(buffer, "JPEG")
    small = Image.open(io.BytesIO(thumbnail(buffer.getvalue(), 240)))
    assert small.size == (240, 120)
    assert [channel > 128 for channel in small.getpixel((20, 60))] == [False, False, False]  # type: ignore[union-attr]
    assert small.getpixel((220, 60))[0] > 200  # type: ignore[index]
