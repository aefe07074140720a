"""Which rows are answered together, and what becomes of those that do not fit into memory."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from user_rows import drawn_conversations, drawn_photo

from riskva.data.conversation import Conversation, Photo
from riskva.encoding import Processor, encode, load_processor
from riskva.errors import DataError
from riskva.generation import batches as batches_module
from riskva.generation.answer import Answer
from riskva.generation.batches import LengthBuckets, answer_in_memory, is_out_of_memory

CPU_FULL = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"


class Watched:
    """Rows with photos of three sizes in turn, that say which of them were read."""

    def __init__(self, count: int, unreadable: Sequence[int] = (), not_pictures: Sequence[int] = ()) -> None:
        self.rows = [
            replace(row, photos=(self.photo(number, number in not_pictures),))
            for number, row in enumerate(drawn_conversations(count))
        ]
        self.unreadable = unreadable
        self.read: list[int] = []

    @staticmethod
    def photo(number: int, is_no_picture: bool) -> Photo:
        side = 84 + 84 * (number % 3)
        return Photo(data=b"text", name="text.jpg") if is_no_picture else drawn_photo(number, side, side)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Conversation:
        self.read.append(index)
        if index in self.unreadable:
            raise DataError(f"row {index}")
        return self.rows[index]

    @property
    def ids(self) -> list[str]:
        return [row.id for row in self.rows]

    def id_of(self, index: int) -> str:
        return self.rows[index].id


@pytest.fixture(scope="module")
def processor(tiny_model: Path) -> Processor:
    return load_processor(tiny_model)


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of three batches, so that a handful of rows fills several."""
    monkeypatch.setattr(batches_module, "BATCHES_AT_ONCE", 3)


def test_every_row_is_in_one_batch_with_others_of_like_length(processor: Processor) -> None:
    rows = Watched(40)
    own = range(1, 39)
    batches = list(LengthBuckets(rows, own, 4, processor))
    assert sorted(row for batch in batches for row in batch) == list(own)
    assert all(len(batch) == 4 for batch in batches[:-1])
    for first in range(0, len(batches), 3):
        window = [row for batch in batches[first : first + 3] for row in batch]
        assert sorted(window) == list(own[first * 4 : (first + 3) * 4])  # neighbours on disk
        lengths = [len(encode(rows.rows[row].prompt, processor).input_ids) for row in window]
        assert lengths == sorted(lengths, reverse=True)
        assert len(set(lengths)) > 1


def test_batches_are_the_same_whatever_is_done(processor: Processor) -> None:
    own = range(30)
    whole = list(LengthBuckets(Watched(30), own, 4, processor))
    for done in ({0}, {3, 17, 29}, set(range(13)), set(range(0, 30, 2))):
        left = list(LengthBuckets(Watched(30), own, 4, processor, frozenset(done)))
        assert left == [batch for batch in whole if not done.issuperset(batch)]
    done = frozenset(whole[1]) | frozenset(whole[4]) | {whole[2][0]}
    assert list(LengthBuckets(Watched(30), own, 4, processor, done)) == [
        batch for number, batch in enumerate(whole) if number not in (1, 4)
    ]


def test_nothing_is_read_of_rows_that_were_sorted_together_and_are_all_done(processor: Processor) -> None:
    rows = Watched(36)
    assert list(LengthBuckets(rows, range(36), 4, processor, frozenset(range(36)))) == []
    assert rows.read == []
    list(LengthBuckets(rows, range(36), 4, processor, frozenset(range(36)) - {14}))
    assert set(rows.read) == set(range(12, 24))


def test_only_one_window_is_measured_ahead(processor: Processor) -> None:
    rows = Watched(36)
    next(iter(LengthBuckets(rows, range(36), 4, processor)))
    assert set(rows.read) == set(range(12))


def test_a_row_that_cannot_be_measured_counts_as_empty(processor: Processor) -> None:
    rows = Watched(12, unreadable=[2], not_pictures=[5])
    batches = list(LengthBuckets(rows, range(12), 4, processor))
    assert batches[-1][-2:] == [2, 5]
    assert sorted(row for batch in batches for row in batch) == list(range(12))


class Memory:
    """Answers up to `room` prompts together, and says what it was asked."""

    def __init__(self, room: int, error: Exception, too_large: str = "") -> None:
        self.room, self.error, self.too_large = room, error, too_large
        self.asked: list[str] = []

    def __call__(self, prompts: Sequence[str]) -> list[Answer]:
        self.asked.append("".join(prompts))
        if len(prompts) > self.room or (self.too_large and self.too_large in prompts):
            raise self.error
        return [Answer(prompt.upper(), "stop") for prompt in prompts]


def outcomes(memory: Memory, prompts: str) -> list[str]:
    return [one.text if isinstance(one, Answer) else str(one) for one in answer_in_memory(prompts, memory)]


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory.\nmore"), MemoryError(), RuntimeError(CPU_FULL)],
    ids=lambda error: type(error).__name__,
)
def test_what_does_not_fit_is_halved_in_order(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    memory = Memory(2, error)
    assert outcomes(memory, "abcde") == list("ABCDE")
    assert memory.asked == ["abcde", "ab", "cde", "c", "de"]
    assert "out of memory with 5 rows together: they are answered 3 at a time" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory.\nmore"), "CUDA out of memory."),
        (MemoryError(), "no more memory"),
        (RuntimeError(CPU_FULL), CPU_FULL),
    ],
)
def test_one_that_does_not_fit_alone_costs_no_other(error: Exception, told: str) -> None:
    memory = Memory(9, error, too_large="c")
    found = answer_in_memory("abcde", memory)
    assert [one.text if isinstance(one, Answer) else None for one in found] == ["A", "B", None, "D", "E"]
    assert isinstance(found[2], torch.OutOfMemoryError)
    assert str(found[2]) == told


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ValueError("x"), KeyboardInterrupt()])
def test_other_errors_pass_through_at_once(error: BaseException) -> None:
    assert not is_out_of_memory(error)
    memory = Memory(1, error)  # type: ignore[arg-type]
    with pytest.raises(type(error)):
        answer_in_memory("ab", memory)
    assert memory.asked == ["ab"]


def test_the_tensors_of_an_attempt_are_gone_before_the_next(capsys: pytest.CaptureFixture[str]) -> None:
    import weakref

    kept: list[weakref.ref[torch.Tensor]] = []

    def answer(prompts: Sequence[str]) -> list[Answer]:
        assert not any(one() is not None for one in kept)
        large = torch.zeros(8)
        kept.append(weakref.ref(large))
        if len(prompts) > 1:
            raise torch.OutOfMemoryError(f"with {large.shape}")
        return [Answer("", "stop")]

    assert len(answer_in_memory("abc", answer)) == 3


def test_the_cpus_own_error_is_known() -> None:
    """The authority: what torch itself says."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
