import errno
import multiprocessing
import signal
import subprocess
import sys
from collections import namedtuple
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from user_rows import drawn_conversations

from riskva.data.conversation import Conversation, Message, Photo
from riskva.data.images import open_photo
from riskva.encoding import Encoded, Processor, encode, load_processor, measure
from riskva.errors import DataError, RecipeError
from riskva.training import EncodedDataset, pixel_cache
from riskva.training.pixel_cache import CachePlan, PixelCache, opened, plan_cache, require_room

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def processor(tiny_model: Path) -> Processor:
    return load_processor(tiny_model, image_max_pixels=300 * 300)


@pytest.fixture
def shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of /dev/shm."""
    folder = tmp_path / "shm"
    folder.mkdir()
    monkeypatch.setattr(pixel_cache, "SHARED_MEMORY", folder)
    return folder


def row_with(*photos: bytes) -> Conversation:
    turns = (Message("user", "<image>" * len(photos) + "看图"), Message("assistant", "墙面裂缝"))
    return Conversation("1", turns, tuple(Photo(data=data, name="p") for data in photos))


def picture(width: int, height: int, mode: str = "RGB", orientation: int = 1, kind: str = "PNG") -> bytes:
    bands = len(mode) if mode != "L" else 1
    values = np.random.default_rng(width * 31 + height).integers(0, 256, (height, width, bands), dtype=np.uint8)
    image = Image.fromarray(values[..., 0] if bands == 1 else values, mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = BytesIO()
    image.save(stream, kind, exif=exif)
    return stream.getvalue()


SIZES = [(28, 28), (30, 40), (1, 90), (90, 1), (640, 480), (481, 1023), (300, 300), (56, 5000), (20, 3900), (57, 55)]
PICTURES = {
    **{f"{width}x{height}": picture(width, height) for width, height in SIZES},
    **{f"turned {number}": picture(120, 70, orientation=number, kind="JPEG") for number in range(1, 9)},
    "alpha": picture(90, 60, "RGBA"),
    "grey": picture(90, 60, "L"),
    "grey and alpha": picture(90, 60, "LA"),
    "cmyk": picture(90, 60, "CMYK", kind="JPEG"),
}


def cache_of(rows: list[Conversation], processor: Processor, folder: Path, gigabytes: float = 1) -> CachePlan:
    tokens = [measure(row, processor).num_image_tokens for row in rows]
    return plan_cache("disk", folder, gigabytes, [tokens], processor)[0]


def are_equal(one: Encoded, other: Encoded) -> bool:
    return (
        torch.equal(one.pixel_values, other.pixel_values)
        and torch.equal(one.image_grid_thw, other.image_grid_thw)
        and torch.equal(one.input_ids, other.input_ids)
        and torch.equal(one.labels, other.labels)
    )


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("limits", [(300 * 300, 56 * 56), (1024 * 1024, 28 * 28), (3000, 2900)])
def test_kept_pixels_give_the_very_same_patches(
    name: str, limits: tuple[int, int], tiny_model: Path, tmp_path: Path
) -> None:
    """Against the image processor's own single call; under (3000, 2900) its rule would move some sizes twice."""
    processor = load_processor(tiny_model, *limits)
    row = row_with(PICTURES[name])
    plan = cache_of([row], processor, tmp_path)
    dataset = EncodedDataset([row], processor, cache=plan.cache(0))
    expected = processor.image_processor(images=[open_photo(row.photos[0])], return_tensors="pt")
    with opened(plan):
        first, second = dataset[0], dataset[0]
        assert len(list(plan.folder.iterdir())) == 1
        assert sum(path.stat().st_size for path in plan.folder.iterdir()) <= plan.num_bytes
    for encoded in (encode(row, processor), first, second):
        assert torch.equal(encoded.pixel_values, expected["pixel_values"])
        assert torch.equal(encoded.image_grid_thw, expected["image_grid_thw"])
    assert are_equal(first, second)


def test_rows_with_several_photos_and_with_none(processor: Processor, tmp_path: Path) -> None:
    rows = [row_with(PICTURES["640x480"], PICTURES["alpha"], PICTURES["turned 6"]), row_with()]
    plan = cache_of(rows, processor, tmp_path)
    assert [bool(one) for one in plan.keeps[0]] == [True, False]
    dataset = EncodedDataset(rows, processor, cache=plan.cache(0))
    with opened(plan):
        for _ in range(2):
            assert all(are_equal(dataset[index], encode(rows[index], processor)) for index in range(2))


def test_later_reads_open_no_photo(processor: Processor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = drawn_conversations(4)
    plan = cache_of(rows, processor, tmp_path)
    dataset = EncodedDataset(rows, processor, cache=plan.cache(0))
    with opened(plan):
        first = [dataset[index] for index in range(4)]
        monkeypatch.setattr(sys.modules["riskva.encoding.encode"], "open_photo", None)
        assert all(are_equal(dataset[index], first[index]) for index in range(4))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_share_what_is_kept(method: str, processor: Processor, tmp_path: Path) -> None:
    rows = drawn_conversations(9)
    plan = cache_of(rows, processor, tmp_path)
    dataset = EncodedDataset(rows, processor, cache=plan.cache(0))
    loader: DataLoader[Any] = DataLoader(
        dataset, batch_size=None, num_workers=2, multiprocessing_context=multiprocessing.get_context(method)
    )
    with opened(plan):
        first = list(loader)
        kept = {path.name: path.stat().st_ino for path in plan.folder.iterdir()}
        assert set(kept) == {f"0-{index}" for index in range(9)}
        second = list(loader)
        assert {path.name: path.stat().st_ino for path in plan.folder.iterdir()} == kept  # nothing was written again
    assert all(are_equal(one, other) for one, other in zip(first, second, strict=True))


def test_the_budget_decides_which_rows_are_kept(processor: Processor, tmp_path: Path) -> None:
    page = 4096
    sizes = [400, 10, 300, 0, 10]  # tokens; 784 pixels of three bytes each, and the file's head
    needed = [-(-(size * (3 * 784 + 16) + 8) // page) * page for size in sizes]
    gigabytes = (needed[0] + needed[1] + needed[4]) / 1e9
    plan, said = plan_cache("memory", tmp_path, gigabytes, [sizes[:2], sizes[2:]], processor)
    assert [one.tolist() for one in plan.keeps] == [[True, True], [False, False, True]]
    assert plan.num_bytes <= gigabytes * 1e9
    assert said.startswith("cache_images: the photos of 3 of 4 rows fit into ")
    assert plan.cache(1).name == "1"


def test_no_room_and_no_shared_memory_say_what_to_do(
    processor: Processor, shared_memory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, _ = plan_cache("memory", tmp_path, 1, [[1000] * 50], processor)
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(64e6, 0, 64e6))
    with pytest.raises(
        RecipeError, match=r"memory needs 0\.12 GB in .*, which has 0\.06 GB free; give the container"
    ) as caught:
        require_room(plan)
    assert "--shm-size" in str(caught.value)
    assert "set cache_images: disk" in str(caught.value)
    on_disk, _ = plan_cache("disk", tmp_path / "not yet" / "there", 1, [[1000] * 50], processor)
    with pytest.raises(RecipeError, match=r"disk needs .* lower cache_images_gb"):
        require_room(on_disk)
    shared_memory.rmdir()
    with pytest.raises(RecipeError, match="which this machine has not; set cache_images: disk"):
        require_room(plan)


def test_a_full_disk_is_an_error_that_leaves_no_torn_file(
    processor: Processor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = drawn_conversations(1)
    plan = cache_of(rows, processor, tmp_path)

    def full(self: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with opened(plan):
        monkeypatch.setattr(Path, "replace", full)
        with pytest.raises(DataError, match=r"cache_images: no room is left in .*pixel_cache"):
            EncodedDataset(rows, processor, cache=plan.cache(0))[0]
        assert list(plan.folder.iterdir()) == []
        monkeypatch.undo()


def test_the_folder_is_gone_after_an_exception(processor: Processor, shared_memory: Path, tmp_path: Path) -> None:
    plan, _ = plan_cache("memory", tmp_path, 1, [[100]], processor)

    def fail() -> None:
        with opened(plan):
            PixelCache(plan.folder, "0", np.ones(1, dtype=np.bool_)).pixels(
                0, lambda: [np.zeros((28, 28, 3), np.uint8)]
            )
            assert plan.folder.is_relative_to(shared_memory)
            raise ValueError("the run fails")

    with pytest.raises(ValueError, match="the run fails"):
        fail()
    assert [path.name for path in shared_memory.rglob("*") if path.name != ".lock"] == [plan.folder.parent.name]


def test_a_second_run_with_the_same_output_is_refused(
    processor: Processor, shared_memory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixel_cache, "_SECONDS_TO_WAIT", 0.1)
    plan, _ = plan_cache("memory", tmp_path, 1, [[100]], processor)
    with opened(plan), pytest.raises(RecipeError, match="belongs to another run"), opened(plan):
        pass


HOLDER = """
import sys, time
from pathlib import Path
from riskva.training import pixel_cache
pixel_cache.SHARED_MEMORY = Path(sys.argv[1])
with pixel_cache.opened(pixel_cache.CachePlan("memory", Path(sys.argv[2]), (), 0)):
    print("ready", flush=True)
    time.sleep(100)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_a_run_leaves_when_it_is_ended(number: signal.Signals, shared_memory: Path, tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(shared_memory), str(tmp_path / "a")], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "ready\n"
    folder = CachePlan("memory", tmp_path / "a", (), 0).folder
    assert folder.is_dir()
    with opened(CachePlan("memory", tmp_path / "b", (), 0)):
        assert folder.is_dir()  # the living keep theirs
    holder.send_signal(number)
    status = holder.wait(timeout=20)
    assert status == (128 + signal.SIGTERM if number == signal.SIGTERM else -signal.SIGKILL)
    assert folder.is_dir() is (number == signal.SIGKILL)
    with opened(None):  # any later run
        pass
    assert not folder.exists()


def test_what_a_killed_run_left_on_disk_is_not_read(processor: Processor, tmp_path: Path) -> None:
    rows = drawn_conversations(1)
    plan = cache_of(rows, processor, tmp_path)
    plan.folder.mkdir()
    (plan.folder / "0-0").write_bytes(b"another row's")
    with opened(plan):
        assert are_equal(EncodedDataset(rows, processor, cache=plan.cache(0))[0], encode(rows[0], processor))
    assert not plan.folder.exists()
