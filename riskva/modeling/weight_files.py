"""A model's safetensors, read tensor by tensor and written shard by shard: the whole is never in memory."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from riskva.errors import ModelError
from riskva.files import write_json


@dataclass(frozen=True)
class StoredWeights:
    """The tensors of a model folder by the names that they have there; `files` says which file holds each."""

    files: Mapping[str, Path]

    @classmethod
    def of(cls, folder: Path) -> StoredWeights:
        """What the folder's `model.safetensors`, or the shards that its index names, hold.

        Raises `ModelError` where there are none, one cannot be read, or two hold a tensor of one name.
        """
        files = dict[str, Path]()
        for path in _weight_files(folder):
            try:
                with safe_open(path, framework="pt") as stored:
                    names = list(stored.keys())
            except (OSError, SafetensorError) as error:
                raise ModelError(f"{path}: cannot be read: {error}; copy it again") from error
            if twice := files.keys() & set(names):
                raise ModelError(f"{path}: {min(twice)} is in {files[min(twice)].name} as well; copy the model again")
            files.update(dict.fromkeys(names, path))
        return cls(files)

    def __getitem__(self, name: str) -> Tensor:
        """The tensor, still on disk: its bytes are read where they are used, and may be dropped from memory again."""
        # Opened for each tensor: a file that stays mapped keeps all that was read of it
        with safe_open(self.files[name], framework="pt") as stored:
            tensor: Tensor = stored.get_tensor(name)
        return tensor

    @property
    def total_bytes(self) -> int:
        """What the files take on disk."""
        return sum(path.stat().st_size for path in set(self.files.values()))


def _weight_files(folder: Path) -> list[Path]:
    """In the order in which transformers looks for them."""
    if (folder / SAFE_WEIGHTS_NAME).is_file():
        return [folder / SAFE_WEIGHTS_NAME]
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    if not index.is_file():
        raise ModelError(f"{folder}: neither {SAFE_WEIGHTS_NAME} nor {index.name}; weights in other forms are not read")
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index}: damaged ({error!r}); copy it again") from error
    if missing := sorted(name for name in names if not (folder / name).is_file()):
        raise ModelError(f"{folder}: {', '.join(missing)} of {index.name} is not there; copy it again")
    return [folder / name for name in sorted(names)]


def _give_back_freed_memory() -> None:
    """Let the system have what is freed: the C library keeps holes of up to 32 MB between the tensors of a shard.

    In a merge of 1.2 GB into one shard they took 2 GB more (measured).
    """
    with suppress(OSError, AttributeError):  # another C library, which has no such function
        ctypes.CDLL(None).malloc_trim(0)


def write_weights(
    folder: Path, sizes: Mapping[str, int], tensors: Iterable[tuple[str, Tensor]], max_shard_bytes: int
) -> None:
    """Write safetensors files of at most `max_shard_bytes` each, and their index if there are several.

    `sizes` are the tensors' bytes by name; `tensors` gives them in that order, one at a time. A tensor that is larger
    than a shard may be gets one of its own. Raises `ModelError` when the disk does not take them.
    """
    plan = split_state_dict_into_shards_factory(
        dict(sizes),
        get_storage_size=lambda size: size,
        filename_pattern=SAFE_WEIGHTS_NAME.replace(".", "{suffix}."),
        max_shard_size=max_shard_bytes,
    )
    folder.mkdir(parents=True, exist_ok=True)
    coming = iter(tensors)
    for file_name, names in plan.filename_to_tensors.items():
        shard = dict[str, Tensor]()
        for _ in names:
            name, tensor = next(coming)
            shard[name] = tensor.contiguous()
            _give_back_freed_memory()
        try:
            save_file(shard, folder / file_name, metadata={"format": "pt"})
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{folder / file_name}: cannot be written: {error}") from error
        del shard
        _give_back_freed_memory()
    if (left := next(coming, None)) is not None:
        raise ValueError(f"{left[0]} was to be written, and sizes has not got it")
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        write_json(folder / SAFE_WEIGHTS_INDEX_NAME, index)
