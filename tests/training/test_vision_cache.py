import errno
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Qwen2_5_VLForConditionalGeneration
from user_rows import drawn_conversations, drawn_photo

from riskva import main_memory
from riskva.data.conversation import Conversation, Message, Photo
from riskva.data.registry import FEATURES_FOLDER
from riskva.encoding import Encoded, Length, Processor, encode, load_processor, measure
from riskva.errors import DataError, ImageError, ModelError, RecipeError
from riskva.recipe import SftRecipe
from riskva.training import EncodedDataset, feature_store, shared_folder, vision_cache
from riskva.training.feature_store import FeatureStore, photo_key, stored_bytes
from riskva.training.feature_writer import FeatureWriter
from riskva.training.tower_fingerprint import tower_fingerprint
from riskva.training.vision_cache import VisionCachePlan, opened, plan_vision_cache, require_room

HIDDEN = 8
GB = 1_000_000_000


@pytest.fixture(scope="module")
def processor(tiny_model: Path) -> Processor:
    return load_processor(tiny_model, image_max_pixels=300 * 300)


@pytest.fixture(autouse=True)
def shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of /dev/shm, in which and beside which much is free."""
    folder = tmp_path / "shm"
    folder.mkdir()
    monkeypatch.setattr(shared_folder, "SHARED_MEMORY", folder)
    monkeypatch.setattr(vision_cache, "free_memory", lambda: 500 * GB)
    monkeypatch.setattr(vision_cache, "free_bytes", lambda _: 500 * GB)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    folder = tmp_path / "features"
    folder.mkdir()
    return FeatureStore(folder, HIDDEN, torch.bfloat16)


def features_of(num_tokens: int, seed: int = 0, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Random bits: every value that a number can have, not-a-number too."""
    size = num_tokens * HIDDEN * dtype.itemsize
    bits = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
    return torch.from_numpy(bits).view(dtype).view(num_tokens, HIDDEN)


def same_bits(one: Tensor | None, other: Tensor) -> bool:
    return one is not None and one.dtype == other.dtype and torch.equal(one.view(torch.uint8), other.view(torch.uint8))


def writer_of(store: FeatureStore, room: int = GB, **how: Any) -> FeatureWriter:
    return FeatureWriter(store, room, **{"remedy": "buy", "must_find_room": True, "ends_with_the_run": False, **how})


def recipe_of(tmp_path: Path, **keys: Any) -> SftRecipe:
    named: dict[str, Any] = {"stage": "sft", "model_name_or_path": "m", "dataset": ("d",), **keys}
    return SftRecipe(output_dir=tmp_path / "out", dataset_dir=tmp_path / "data", **named)


# --- names ---


def test_a_photo_is_known_by_its_bytes() -> None:
    one, other = drawn_photo(1).read(), drawn_photo(2).read()
    assert photo_key(one) == photo_key(bytes(one)) != photo_key(other)
    assert re.fullmatch("[0-9a-f]{40}", photo_key(one))


def test_both_layouts_of_the_same_weights_have_one_fingerprint(tiny_model: Path, tiny_model_hub: Path) -> None:
    """One file with `model.visual.*` or sharded ones with `visual.*`."""
    assert len(list(tiny_model_hub.glob("*.safetensors"))) > 1
    both = [tower_fingerprint(one, load_processor(one), ["bf16"]) for one in (tiny_model, tiny_model_hub)]
    assert both[0] == both[1]


def with_weights(tiny_model: Path, folder: Path, name: str) -> Path:
    """The tiny model with one number of one weight changed."""
    shutil.copytree(tiny_model, folder)
    weights = load_file(folder / "model.safetensors")
    weights[name].view(-1)[-1] += 1
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_the_fingerprint_changes_with_all_that_decides_features(tiny_model: Path, tmp_path: Path) -> None:
    names = sorted(load_file(tiny_model / "model.safetensors"))
    block, merger, language = (
        next(name for name in names if part in name) for part in ("visual.blocks.1.", "visual.merger.", "layers.0.mlp.")
    )
    folders = [with_weights(tiny_model, tmp_path / str(i), name) for i, name in enumerate((block, merger, language))]
    windows = shutil.copytree(tiny_model, tmp_path / "windows")
    config = (windows / "config.json").read_text()
    assert '"window_size": 56' in config
    (windows / "config.json").write_text(config.replace('"window_size": 56', '"window_size": 112'))
    darker = load_processor(tiny_model)
    darker.image_processor.image_mean = [0.5, 0.5, 0.5]

    base = load_processor(tiny_model)
    first = tower_fingerprint(tiny_model, base, ["bfloat16"])
    changed = [
        tower_fingerprint(tiny_model, load_processor(tiny_model, image_max_pixels=300 * 300), ["bfloat16"]),
        tower_fingerprint(tiny_model, load_processor(tiny_model, image_min_pixels=100 * 100), ["bfloat16"]),
        tower_fingerprint(tiny_model, darker, ["bfloat16"]),
        tower_fingerprint(tiny_model, base, ["float32"]),
        tower_fingerprint(folders[0], base, ["bfloat16"]),
        tower_fingerprint(folders[1], base, ["bfloat16"]),
        tower_fingerprint(windows, base, ["bfloat16"]),
    ]
    assert len({first, *changed}) == 1 + len(changed)
    assert tower_fingerprint(folders[2], base, ["bfloat16"]) == first  # the language model sees what the tower made


def test_a_model_without_a_tower_is_an_error(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    save_file({name: one for name, one in weights.items() if "visual" not in name}, folder / "model.safetensors")
    with pytest.raises(ModelError, match="the vision tower's weights cannot be read: none are there"):
        tower_fingerprint(folder, load_processor(folder), [])


# --- files ---


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_every_bit_comes_back(dtype: torch.dtype, tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, HIDDEN, dtype)
    features = features_of(5000, dtype=dtype)
    store.write("ab", features)
    assert same_bits(store.features("ab", 5000), features)
    transposed = features_of(HIDDEN, dtype=dtype).T  # not contiguous
    store.write("ac", transposed)
    assert same_bits(store.features("ac", HIDDEN), transposed.contiguous())
    assert stored_bytes(tmp_path) == (5000 + HIDDEN) * HIDDEN * dtype.itemsize


def test_writing_into_what_was_read_changes_no_file(store: FeatureStore) -> None:
    store.write("ab", features_of(5))
    read = store.features("ab", 5)
    assert read is not None
    read.zero_()
    assert same_bits(store.features("ab", 5), features_of(5))


@pytest.mark.parametrize("size", [0, 1, 5 * HIDDEN * 2 - 1, 5 * HIDDEN * 2 + 1])
def test_a_file_of_another_size_is_made_again(size: int, store: FeatureStore) -> None:
    features = features_of(5)
    store.write("ab", features)
    path = store.folder / "ab" / "ab"
    path.write_bytes(b"x" * size)
    assert store.features("ab", 5) is None
    with writer_of(store) as writer:
        writer.keep(["ab"], [features])
    assert same_bits(store.features("ab", 5), features)


def forked(target: Callable[..., None], *args: Any) -> tuple[Any, Any]:
    """A process that runs `target(connection, *args)`, and the other end of the connection."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=target, args=(there, *args), daemon=True)
    process.start()
    return process, here


def stop_in_the_middle(connection: Any, store: FeatureStore) -> None:
    def stop(_: int) -> None:
        connection.send("the file is there under its partial name")
        time.sleep(100)

    os.fsync = stop
    store.write("ab", features_of(1000))


def test_a_process_killed_in_the_middle_of_a_file_leaves_nothing_to_read(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, connection = forked(stop_in_the_middle, store)
    connection.recv()
    process.kill()
    process.join(20)
    (partial,) = (store.folder / "ab").iterdir()
    assert partial.stat().st_size == store.num_bytes(1000)
    assert store.features("ab", 1000) is None
    features = features_of(1000)
    with writer_of(store) as writer:
        writer.keep(["ab"], [features])
    assert same_bits(store.features("ab", 1000), features)
    store.delete_abandoned()
    assert partial.exists()  # it might belong to another machine's process, which lives
    monkeypatch.setattr(feature_store, "_SECONDS_TO_WRITE", -1)
    store.delete_abandoned()
    assert [path.name for path in (store.folder / "ab").iterdir()] == ["ab"]


def fill(connection: Any, store: FeatureStore) -> None:
    with writer_of(store) as writer:
        connection.recv()
        for number in range(200):
            writer.keep([f"{number:04d}"], [features_of(number + 1, seed=number)])


def test_two_processes_fill_one_folder(store: FeatureStore) -> None:
    fillers = [forked(fill, store) for _ in range(2)]
    for _, connection in fillers:
        connection.send("go")
    for process, _ in fillers:
        process.join(60)
        assert process.exitcode == 0
    for number in range(200):
        assert same_bits(store.features(f"{number:04d}", number + 1), features_of(number + 1, seed=number))
    assert sum(path.is_file() for path in store.folder.rglob("*")) == 200


# --- writing ---


def test_a_step_does_not_wait_for_the_disk(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    write = FeatureStore.write

    def slow(self: FeatureStore, key: str, features: Tensor) -> None:
        time.sleep(0.05)
        write(self, key, features)

    monkeypatch.setattr(FeatureStore, "write", slow)
    features = features_of(5)
    with writer_of(store) as writer:
        start = time.monotonic()
        for key in ("aa", "ab", "ac", "ad"):
            writer.keep([key], [features])
        assert time.monotonic() - start < 0.1
        features.zero_()  # the writer has a copy of its own
        writer.flush()
        assert store.holds("ad", 5)
        writer.keep(["ba", "bb"], [features, features])
    assert store.holds("bb", 5)  # what waited was written at the end
    assert same_bits(store.features("ad", 5), features_of(5))


def test_what_is_stored_is_not_written_again(store: FeatureStore) -> None:
    with writer_of(store) as writer:
        writer.keep(["aa", "aa"], [features_of(5), features_of(5)])
    inode = (store.folder / "aa" / "aa").stat().st_ino
    with writer_of(store, room=2 * 5 * HIDDEN * 2) as writer:
        writer.keep(["aa", "ab"], [features_of(5), features_of(5)])
        writer.keep(["aa", "ac"], [features_of(5), features_of(5)])
    assert (store.folder / "aa" / "aa").stat().st_ino == inode
    assert store.holds("ac", 5)  # those that were there took no room


def test_a_full_budget_stops_with_one_line(store: FeatureStore, capsys: pytest.CaptureFixture[str]) -> None:
    with writer_of(store, room=2 * 5 * HIDDEN * 2) as writer:
        for key in ("aa", "ab", "ac", "ad"):
            writer.keep([key], [features_of(5)])
            writer.flush()
    assert [store.holds(key, 5) for key in ("aa", "ab", "ac", "ad")] == [True, True, False, False]
    assert capsys.readouterr().err.count("vision_cache_gb is used up") == 1


def no_room(self: Path, target: Path) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_an_error_where_room_was_asked_for(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "replace", no_room)

    def keep_on() -> None:
        with writer_of(store) as writer:
            for _ in range(100):  # none of them waits for a thread that writes no more
                writer.keep(["aa"], [features_of(5)])
                time.sleep(0.001)

    with pytest.raises(DataError, match=r"vision_cache: no room is left in .*features; buy"):
        keep_on()
    with pytest.raises(DataError, match="no room is left"), writer_of(store) as writer:
        writer.keep(["aa"], [features_of(5)])  # nobody calls again: at the end
    assert list((store.folder / "aa").iterdir()) == []


def test_a_full_disk_is_a_warning_where_nobody_asked(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Path, "replace", no_room)
    with writer_of(store, must_find_room=False) as writer:
        for key in ("aa", "ab"):
            writer.keep([key], [features_of(5)])
            writer.flush()
    assert capsys.readouterr().err.count("warning: vision_cache: no room is left in") == 1


def test_a_folder_that_goes_away_stops_the_writing(store: FeatureStore, capsys: pytest.CaptureFixture[str]) -> None:
    with writer_of(store) as writer:
        shutil.rmtree(store.folder)
        writer.keep(["aa"], [features_of(5)])
    assert "is gone" in capsys.readouterr().err


def test_other_errors_name_the_folder(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Path, target: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "replace", broken)
    message = r"cannot write into .*features \(Input/output error\); see vision_cache_dir"
    with pytest.raises(DataError, match=message), writer_of(store) as writer:
        writer.keep(["aa"], [features_of(5)])


def test_an_exception_is_not_kept_waiting(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(self: FeatureStore, key: str, features: Tensor) -> None:
        time.sleep(0.2)

    monkeypatch.setattr(FeatureStore, "write", slow)

    def fail() -> None:
        with writer_of(store) as writer:
            for number in range(8):
                writer.keep([f"{number:04d}"], [features_of(5)])
            raise ValueError("the run fails")

    start = time.monotonic()
    with pytest.raises(ValueError, match="the run fails"):
        fail()
    assert time.monotonic() - start < 1  # and not the 1.6 s that all would take


def test_features_of_another_kind_are_refused(store: FeatureStore) -> None:
    with writer_of(store) as writer:
        for wrong in (features_of(5, dtype=torch.float32), features_of(5)[:, :4]):
            with pytest.raises(ValueError, match=r"features must be torch.bfloat16 \(tokens, 8\), found"):
                writer.keep(["aa"], [wrong])


# --- reading ---


def made_of(row: Encoded, processor: Processor) -> list[Tensor]:
    """Stand-ins for what the tower makes of a row's photos."""
    lengths = (row.image_grid_thw.prod(dim=1) // processor.tokens_per_patch_group).tolist()
    return [features_of(length, seed=length) for length in lengths]


def keep(store: FeatureStore, rows: list[Encoded], processor: Processor) -> None:
    with writer_of(store) as writer:
        for row in rows:
            writer.keep(row.photo_keys, made_of(row, processor))


def test_the_second_time_no_photo_is_decoded(
    store: FeatureStore, processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversations = [*drawn_conversations(4), *drawn_conversations(1, with_photos=False)]
    dataset = EncodedDataset(conversations, processor, features=store)
    first = [dataset[index] for index in range(5)]
    plain = [encode(one, processor) for one in conversations]
    keep(store, first, processor)
    monkeypatch.setattr(sys.modules["riskva.encoding.encode"], "open_photo", None)
    second = [dataset[index] for index in range(5)]
    for without, before, after in zip(plain, first, second, strict=True):
        assert torch.equal(without.pixel_values, before.pixel_values)
        assert all(one is None for one in before.photo_features)
        assert after.pixel_values.shape == (0, 1176)
        for name in ("input_ids", "labels", "image_grid_thw"):
            assert torch.equal(getattr(without, name), getattr(before, name))
            assert torch.equal(getattr(without, name), getattr(after, name))
        assert before.photo_keys == after.photo_keys
        assert len(after.photo_keys) == len(after.photo_features) == len(without.image_grid_thw)
        assert all(map(same_bits, after.photo_features, made_of(after, processor)))
    assert plain[0].photo_keys == plain[0].photo_features == ()


def test_a_row_with_some_photos_kept_decodes_the_others(store: FeatureStore, processor: Processor) -> None:
    photos = (drawn_photo(1, 112, 56), drawn_photo(2, 84, 84), drawn_photo(3, 56, 168))
    turns = (Message("user", "<image><image><image>看图"), Message("assistant", "墙面裂缝"))
    row = Conversation("1", turns, photos)
    alone = Conversation("2", (Message("user", "<image>"), turns[1]), photos[1:2])
    dataset = EncodedDataset([row, alone], processor, features=store)
    keep(store, [dataset[1]], processor)
    encoded, plain = dataset[0], encode(row, processor)
    assert [one is not None for one in encoded.photo_features] == [False, True, False]
    starts = [0, *plain.image_grid_thw.prod(dim=1).cumsum(0).tolist()]
    others = torch.cat([plain.pixel_values[: starts[1]], plain.pixel_values[starts[2] :]])
    assert torch.equal(encoded.pixel_values, others)
    assert torch.equal(encoded.input_ids, plain.input_ids)
    assert torch.equal(encoded.image_grid_thw, plain.image_grid_thw)


SIZES = [(28, 28), (30, 40), (1, 90), (90, 1), (640, 480), (481, 1023), (300, 300), (56, 5000), (20, 3900), (57, 55)]


@pytest.mark.parametrize("limits", [(300 * 300, 56 * 56), (1024 * 1024, 28 * 28), (3000, 2900)])
def test_headers_give_the_grids_that_decoding_gives(limits: tuple[int, int], tiny_model: Path) -> None:
    """Under (3000, 2900) the rule would move some sizes twice; a turned JPEG changes its sides."""
    processor = load_processor(tiny_model, *limits)
    for orientation in (1, 6):
        for width, height in SIZES:
            exif = Image.Exif()
            exif[0x0112] = orientation
            stream = BytesIO()
            Image.new("RGB", (width, height)).save(stream, "JPEG", exif=exif)
            turns = (Message("user", "<image>"), Message("assistant", "好"))
            row = Conversation("1", turns, (Photo(data=stream.getvalue(), name="p"),))
            found = encode(row, processor, find_features=lambda _, number: ("k", torch.zeros(number, HIDDEN)))
            assert torch.equal(found.image_grid_thw, encode(row, processor).image_grid_thw)
            assert len(found.input_ids) == measure(row, processor).total


def test_photos_that_cannot_be_used_name_the_row(store: FeatureStore, processor: Processor, tmp_path: Path) -> None:
    turns = (Message("user", "<image>"), Message("assistant", "好"))
    cases = [
        (Photo(path=tmp_path / "none.jpg", name="none.jpg"), r"x:3 \(id 3\): none.jpg: no image file"),
        (Photo(data=drawn_photo(1).read()[:-200], name="a.png"), r"x:3 \(id 3\): a.png: the picture does not decode"),
    ]
    for photo, message in cases:
        with pytest.raises(ImageError, match=message):
            EncodedDataset([Conversation("3", turns, (photo,), "x:3")], processor, features=store)[0]
    row = Conversation("3", turns, (drawn_photo(1),), "x:3")
    with pytest.raises(ImageError, match=r"x:3 \(id 3\): 1.png: takes 16 image tokens, but 9 features were kept"):
        encode(row, processor, find_features=lambda *_: ("k", torch.zeros(9, HIDDEN)))


def test_bins_of_rows_are_flattened(processor: Processor) -> None:
    dataset = EncodedDataset(drawn_conversations(6), processor)
    assert [row.id for row in dataset.__getitems__([(4, 0), 3, (1,), (5, 2)])] == ["4", "0", "3", "1", "5", "2"]
    loader: DataLoader[Any] = DataLoader(dataset, batch_sampler=[[(1, 2), (0,)], [3, 4]], collate_fn=list)  # type: ignore[arg-type, list-item]
    assert [[row.id for row in batch] for batch in loader] == [["1", "2", "0"], ["3", "4"]]


def test_workers_read_what_the_training_process_keeps(store: FeatureStore, processor: Processor) -> None:
    dataset = EncodedDataset(drawn_conversations(6), processor, features=store)
    dataset = pickle.loads(pickle.dumps(dataset))  # as workers that are not forked get it
    loader: DataLoader[Any] = DataLoader(dataset, batch_size=None, num_workers=2)
    with writer_of(store) as writer:
        for row in loader:
            writer.keep(row.photo_keys, made_of(row, processor))
        writer.flush()
        for row in loader:
            assert all(map(same_bits, row.photo_features, made_of(row, processor)))


# --- the plan ---


def plan_of(
    tmp_path: Path, processor: Processor, model: Path, num_epochs: float = 3, tokens: int | None = 1000, **keys: Any
) -> tuple[VisionCachePlan | None, str]:
    """For two data sets of that many tokens together; 128 bytes a token, as the tiny model's tower makes them."""
    lengths = None if tokens is None else [[Length(5, tokens // 2)], [Length(7, tokens - tokens // 2)]]
    recipe = recipe_of(tmp_path, **keys)
    found, line = plan_vision_cache(
        recipe, processor, model, dtype=torch.bfloat16, lengths=lengths, num_epochs=num_epochs
    )
    assert line is not None
    return found, line


BYTES = 128_000
"""What the features of 1,000 tokens take: 64 numbers of two bytes each."""


def test_off_says_nothing(processor: Processor, tiny_model: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, vision_cache="off")
    how: dict[str, Any] = {"dtype": torch.bfloat16, "lengths": [], "num_epochs": 3}
    assert plan_vision_cache(recipe, processor, tiny_model, **how) == (None, None)


@pytest.mark.parametrize(
    ("keys", "how", "reason"),
    [
        ({"freeze_vision_tower": False}, {}, r"the vision tower trains \(freeze_vision_tower: false\)"),
        ({"freeze_multi_modal_projector": False}, {}, r"the projector trains \(freeze_multi_modal_projector: false\)"),
        ({"cache_images": "memory"}, {}, "cache_images is set"),
        ({}, {"tokens": None}, "streaming does not count"),
        ({}, {"tokens": 0}, "no row has a photo"),
        ({}, {"num_epochs": 1}, "no photo is seen twice"),
        ({"vision_cache_gb": 0.0001}, {}, r"all features take \d+\.\d MB, and there is room for .* keep a part"),
    ],
)
def test_auto_says_why_it_keeps_nothing(
    keys: dict[str, Any], how: dict[str, Any], reason: str, processor: Processor, tiny_model: Path, tmp_path: Path
) -> None:
    plan, line = plan_of(tmp_path, processor, tiny_model, **keys, **how)
    assert plan is None
    assert re.match(rf"vision_cache: off, {reason}", line)


def test_an_adapter_that_changes_the_tower_is_no_frozen_tower(
    processor: Processor, tiny_model: Path, tmp_path: Path
) -> None:
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_model)
    for name, pattern in (("tower", r".*visual\.blocks.*qkv"), ("language", r".*language_model.*q_proj")):
        adapted = get_peft_model(model, LoraConfig(r=2, target_modules=pattern))
        adapted.save_pretrained(tmp_path / name)
        model = adapted.unload()
    for place in ("auto", "memory"):
        plan, _ = plan_of(
            tmp_path, processor, tiny_model, vision_cache=place, adapter_name_or_path=str(tmp_path / "language")
        )
        assert plan is not None
    tower = str(tmp_path / "tower")
    plan, line = plan_of(tmp_path, processor, tiny_model, adapter_name_or_path=tower)
    assert plan is None
    assert "changes the vision tower" in line
    with pytest.raises(RecipeError, match=r"vision_cache: disk cannot be: the adapter .* changes the vision tower"):
        plan_of(tmp_path, processor, tiny_model, vision_cache="disk", adapter_name_or_path=tower)


def test_auto_takes_memory_then_disk_then_nothing(
    processor: Processor, tiny_model: Path, tmp_path: Path, shared_memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, line = plan_of(tmp_path, processor, tiny_model)
    assert plan is not None
    assert (plan.place, plan.num_bytes, plan.is_asked_for) == ("memory", BYTES, False)
    assert plan.store.folder.is_relative_to(shared_memory)
    assert line == "vision_cache: memory, up to 0.1 MB on each machine"

    free = {shared_memory: 2 * BYTES - 2}
    monkeypatch.setattr(vision_cache, "free_bytes", lambda path: free.get(path, 2 * BYTES))
    plan, line = plan_of(tmp_path, processor, tiny_model)
    assert plan is not None
    assert (plan.place, plan.root) == ("disk", tmp_path / "data" / FEATURES_FOLDER)
    assert str(plan.store.folder) in line
    assert not (tmp_path / "data").exists()  # a plan writes nothing

    monkeypatch.setattr(vision_cache, "free_bytes", lambda path: 2 * BYTES - 2)
    assert plan_of(tmp_path, processor, tiny_model)[0] is None
    monkeypatch.setattr(vision_cache, "free_bytes", lambda path: GB)
    monkeypatch.setattr(vision_cache, "free_memory", lambda: 2 * BYTES - 2)
    plan, _ = plan_of(tmp_path, processor, tiny_model)
    assert plan is not None
    assert plan.place == "disk"
    monkeypatch.setattr(os, "access", lambda *_: False)
    plan, line = plan_of(tmp_path, processor, tiny_model)
    assert plan is None
    assert "where this run may not write (vision_cache_dir names another folder)" in line


def test_auto_goes_on_with_what_is_on_disk(processor: Processor, tiny_model: Path, tmp_path: Path) -> None:
    asked, _ = plan_of(tmp_path, processor, tiny_model, vision_cache="disk")
    assert asked is not None
    with opened(asked) as writer:
        assert writer is not None
        writer.keep(["ab"], [torch.zeros(10, 64, dtype=torch.bfloat16)])
    plan, line = plan_of(tmp_path, processor, tiny_model, num_epochs=1)
    assert plan is not None
    assert (plan.place, plan.num_bytes) == ("disk", BYTES - 1280)
    assert plan.store.holds("ab", 10)
    others = load_processor(tiny_model, image_max_pixels=200 * 200)
    assert plan_of(tmp_path, others, tiny_model, num_epochs=1)[0] is None  # none of those fit
    # Features for other pixel limits take their part of the budget, those of this tower do not.
    keys = {"vision_cache_gb": (BYTES + 100) / 1e9}
    assert plan_of(tmp_path, processor, tiny_model, **keys)[0] is not None
    plan, line = plan_of(tmp_path, others, tiny_model, vision_cache="disk", **keys)
    assert plan is not None
    assert plan.num_bytes == BYTES + 100 - 1280
    assert "of other settings in" in line


def test_what_is_asked_for_is_kept_up_to_the_budget(processor: Processor, tiny_model: Path, tmp_path: Path) -> None:
    how: dict[str, Any] = {"vision_cache_gb": 0.00005, "vision_cache_dir": tmp_path / "elsewhere"}
    plan, line = plan_of(tmp_path, processor, tiny_model, num_epochs=1, vision_cache="disk", **how)
    assert plan is not None
    assert (plan.root, plan.num_bytes, plan.is_asked_for) == (tmp_path / "elsewhere", 50_000, True)
    assert line.endswith("all photos take 0.1 MB, over vision_cache_gb, so some are not kept")
    plan, _ = plan_of(tmp_path, processor, tiny_model, tokens=None, vision_cache="memory", vision_cache_gb=2)
    assert plan is not None
    assert plan.num_bytes == 2 * GB  # streaming: nobody knows better


def test_no_room_says_what_to_do(
    processor: Processor, tiny_model: Path, tmp_path: Path, shared_memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = {
        place: plan_of(tmp_path, processor, tiny_model, tokens=10**6, vision_cache=place)[0]
        for place in ("memory", "disk", "auto")
    }
    memory, disk, auto = plans["memory"], plans["disk"], plans["auto"]
    assert memory is not None
    assert disk is not None
    assert auto is not None
    require_room(memory)
    require_room(disk)
    monkeypatch.setattr(vision_cache, "free_bytes", lambda _: 64_000_000)
    with pytest.raises(RecipeError, match=r"memory needs 0\.13 GB in .*shm, where 64\.0 MB are free; .*--shm-size"):
        require_room(memory)
    with pytest.raises(RecipeError, match=r"disk needs 0\.13 GB in .* lower vision_cache_gb"):
        require_room(disk)
    require_room(auto)  # it stops when no room is left
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(RecipeError, match=r"vision_cache_dir: features cannot be kept in .*data/vision_cache"):
        require_room(disk)
    shared_memory.rmdir()
    with pytest.raises(RecipeError, match="which this machine has not; set vision_cache: disk"):
        require_room(memory)


# --- the run ---


def plan_in(place: Any, tmp_path: Path, **how: Any) -> VisionCachePlan:
    """A plan without a model."""
    root = tmp_path / "kept"
    if place == "memory":
        root = shared_folder.memory_folder(vision_cache._all_runs(), tmp_path)
    store = FeatureStore(root / "tower" if place == "disk" else root, HIDDEN, torch.bfloat16)
    return VisionCachePlan(place, root, store, **{"budget": GB, "num_bytes": GB, "is_asked_for": True, **how})


def test_disk_stays_and_memory_goes(tmp_path: Path, shared_memory: Path) -> None:
    for place in ("disk", "memory"):
        plan = plan_in(place, tmp_path)
        for _ in range(2):
            with opened(plan) as writer:
                assert writer is not None
                writer.keep(["ab"], [features_of(5)])
                writer.flush()
                assert same_bits(plan.store.features("ab", 5), features_of(5))
            assert plan.store.holds("ab", 5) is (place == "disk")
    assert [path.name for path in shared_memory.rglob("*") if path.name != ".lock"] == [plan.root.parent.name]


def test_memory_goes_after_an_exception(tmp_path: Path) -> None:
    plan = plan_in("memory", tmp_path)

    def fail() -> None:
        with opened(plan) as writer:
            assert writer is not None
            writer.keep(["ab"], [features_of(5)])
            raise ValueError("the run fails")

    with pytest.raises(ValueError, match="the run fails"):
        fail()
    assert not plan.root.exists()


def test_the_budget_counts_what_is_there_and_is_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    plan = plan_in("disk", tmp_path, budget=1000)
    other = plan.root / "another tower" / "ab"
    other.mkdir(parents=True)
    (other / "abc").write_bytes(b"x" * 600)
    with opened(plan) as writer:  # of the 400 bytes left, 200 are this process's
        assert writer is not None
        for key in ("aa", "ab", "ac"):
            writer.keep([key], [features_of(5)])
    assert [plan.store.holds(key, 5) for key in ("aa", "ab", "ac")] == [True, True, False]


def test_a_folder_that_cannot_be_made_names_the_key(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file")
    plan = plan_in("disk", tmp_path)
    with pytest.raises(RecipeError, match=r"vision_cache_dir: features cannot be kept in .*kept \("), opened(plan):
        pass


def hold(connection: Any, plan: VisionCachePlan) -> None:
    with opened(plan) as writer:
        assert writer is not None
        writer.keep(["ab"], [features_of(5)])
        writer.flush()
        connection.send("ready")
        time.sleep(100)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_a_run_leaves_in_memory(number: signal.Signals, tmp_path: Path) -> None:
    plan = plan_in("memory", tmp_path)
    process, connection = forked(hold, plan)
    assert connection.recv() == "ready"
    with opened(None):
        assert plan.store.holds("ab", 5)  # the living keep theirs
    os.kill(process.pid, number)
    process.join(20)
    assert process.exitcode == (128 + signal.SIGTERM if number == signal.SIGTERM else -signal.SIGKILL)
    assert plan.root.is_dir() is (number == signal.SIGKILL)
    with opened(None):  # any later run
        pass
    assert not plan.root.exists()


@pytest.fixture
def meminfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of /sys/fs/cgroup."""
    folder = tmp_path / "cgroup"
    folder.mkdir()
    monkeypatch.setattr(main_memory, "_CGROUP", folder)
    return folder


def test_the_container_limits_free_memory(meminfo: Path) -> None:
    machine = main_memory.free_memory()
    assert machine > 0
    (meminfo / "memory.max").write_text("max\n")
    (meminfo / "memory.current").write_text("600\n")
    (meminfo / "memory.stat").write_text("anon 100\ninactive_file 400\n")
    assert main_memory.free_memory() > machine // 2
    (meminfo / "memory.max").write_text("1000\n")
    assert main_memory.free_memory() == 800
