"""What the training core may not change: each sample's loss and every gradient, however rows stand in a batch.

The authority is transformers' own forward, one row at a time, with PEFT's own LoRA layers. Everything is float32.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import transformers
from mixed_samples import TUNINGS, mixed_conversations, recipe, with_features
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from user_rows import drawn_photo

from riskva.encoding import IGNORED, Collator, Encoded, PackedCollator, Processor, encode, load_processor
from riskva.modeling.checkpointing import checkpoint_layers
from riskva.modeling.loading import load_model
from riskva.modeling.tuning import prepare_tuning
from riskva.training.trainer import sample_losses


class Outcome(NamedTuple):
    """A step's losses (B,), each a sample's sum, and the gradients of their mean over all supervised tokens."""

    sums: Tensor
    gradients: dict[str, Tensor]

    @property
    def norm(self) -> float:
        return torch.cat([one.flatten() for one in self.gradients.values()]).norm().item()


@pytest.fixture(scope="module")
def processor(tiny_model: Path) -> Processor:
    return load_processor(tiny_model)


@pytest.fixture(scope="module")
def rows(processor: Processor) -> list[Encoded]:
    return [encode(conversation, processor) for conversation in mixed_conversations()]


@pytest.fixture(scope="module", params=TUNINGS)
def tuning(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def ours(tuning: str, tiny_model: Path) -> nn.Module:
    """The model as training has it; LoRA's B is not zero, so that gradients reach A."""
    torch.manual_seed(0)
    model = prepare_tuning(load_model(tiny_model), recipe(**TUNINGS[tuning])).train()
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.1)
    return model


@pytest.fixture(scope="module")
def plain(ours: nn.Module, processor: Processor, rows: list[Encoded]) -> Outcome:
    """All samples packed into one row, nothing cached, nothing computed twice."""
    return outcome(ours, [PackedCollator(processor)(rows)])


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def outcome(model: nn.Module, batches: Sequence[dict[str, Any]]) -> Outcome:
    """One optimiser step's losses and gradients, over one or more packed rows."""
    model.zero_grad()
    total = sum(int((batch["labels"] != IGNORED).sum()) for batch in batches)
    sums = []
    for batch in batches:
        losses, _ = sample_losses(model, batch)
        (losses.sum() / total).backward()
        sums.append(losses.detach())
    return Outcome(torch.cat(sums), gradients_of(model))


def gradients_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.grad.clone() for name, weight in trained(model).items() if weight.grad is not None}


def authority(ours: nn.Module, folder: Path) -> nn.Module:
    """transformers' class and PEFT's layers with the very weights of `ours`, of which the same train."""
    theirs: Any = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)
    if isinstance(ours, PeftModel):
        theirs = get_peft_model(theirs, ours.peft_config["default"])
    theirs.load_state_dict(ours.state_dict())
    for name, weight in theirs.named_parameters():
        weight.requires_grad_(name in trained(ours))
    return theirs.train()  # type: ignore[no-any-return]


def outcome_of_authority(theirs: nn.Module, rows: Sequence[Encoded], processor: Processor) -> Outcome:
    counts = [int((row.labels[1:] != IGNORED).sum()) for row in rows]
    sums = []
    for row, count in zip(rows, counts, strict=True):
        loss = theirs(**Collator(processor)([row])).loss * count
        (loss / sum(counts)).backward()
        sums.append(loss.detach())
    return Outcome(torch.stack(sums), gradients_of(theirs))


def assert_equal(one: Outcome, other: Outcome) -> None:
    """Measured, relative, over all tests below: losses 2e-7, norms 1e-7, single tensors of gradients 8e-7."""
    torch.testing.assert_close(one.sums, other.sums, rtol=2e-6, atol=0)
    assert one.norm == pytest.approx(other.norm, rel=2e-6)
    assert one.gradients.keys() == other.gradients.keys()
    for name, gradient in one.gradients.items():
        difference = (gradient - other.gradients[name]).norm()
        assert difference <= 1e-5 * gradient.norm() + 1e-9, name


def test_packed_is_unpacked(
    ours: nn.Module, plain: Outcome, tiny_model: Path, processor: Processor, rows: list[Encoded]
) -> None:
    assert plain.gradients.keys() == trained(ours).keys()
    assert_equal(plain, outcome_of_authority(authority(ours, tiny_model), rows, processor))


def test_every_token_may_be_learned(
    ours: nn.Module, tiny_model: Path, processor: Processor, rows: list[Encoded]
) -> None:
    """From a sample's first token, which belongs to it and not to the one before, to its last."""
    learned = [dataclasses.replace(row, labels=row.input_ids.clone()) for row in rows]
    expected = outcome_of_authority(authority(ours, tiny_model), learned, processor)
    assert_equal(outcome(ours, [PackedCollator(processor)(learned)]), expected)


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1, 1, 1, 1), (4, 3), (2, 5)], ids=str)
def test_micro_batches_add_up(
    sizes: tuple[int, ...], ours: nn.Module, plain: Outcome, processor: Processor, rows: list[Encoded]
) -> None:
    left = list(rows)
    batches = [PackedCollator(processor)([left.pop(0) for _ in range(size)]) for size in sizes]
    assert_equal(plain, outcome(ours, batches))


@pytest.mark.parametrize("num_layers", [1, 2])
def test_checkpointed_is_not(
    num_layers: int, ours: nn.Module, plain: Outcome, processor: Processor, rows: list[Encoded]
) -> None:
    checkpoint_layers(ours, num_layers)
    try:
        assert_equal(plain, outcome(ours, [PackedCollator(processor)(rows)]))
    finally:
        checkpoint_layers(ours, 0)


@pytest.mark.parametrize("tuning", ["lora", "full"], indirect=True)  # a tower that trains is not cached
@pytest.mark.parametrize("kept", ["all", "half"])
def test_cached_is_uncached(kept: str, ours: Any, plain: Outcome, processor: Processor, rows: list[Encoded]) -> None:
    bare = ours.get_base_model() if isinstance(ours, PeftModel) else ours
    names = [f"photo {number}" for number in range(sum(len(row.image_grid_thw) for row in rows))]
    seen: dict[str, Tensor] = {}

    def keep(keys: Sequence[str], features: Sequence[Tensor]) -> None:
        assert not any(one.requires_grad for one in features)
        seen.update(zip(keys, features, strict=True))

    bare.keep_features = keep
    try:
        nothing = with_features(rows, dict.fromkeys(names, torch.empty(0)), dict.fromkeys(names, False))
        assert_equal(plain, outcome(ours, [PackedCollator(processor)(nothing)]))
        assert list(seen) == names
        is_kept = {name: kept == "all" or number % 2 == 0 for number, name in enumerate(names)}
        features = dict(seen)
        seen.clear()
        assert_equal(plain, outcome(ours, [PackedCollator(processor)(with_features(rows, features, is_kept))]))
    finally:
        bare.keep_features = None
    assert list(seen) == [name for name in names if not is_kept[name]]


def sums_of(model: nn.Module, rows: Sequence[Encoded], processor: Processor) -> Tensor:
    with torch.no_grad():
        return sample_losses(model, PackedCollator(processor)(rows)).sums


def other_words(row: Encoded, processor: Processor) -> Encoded:
    """The row with every second text token exchanged, labels too; its length and its photos stay."""
    changed = row.input_ids.clone()
    is_text = changed < min(processor.tokenizer.get_added_vocab().values())
    is_text[::2] = False
    changed[is_text] = (changed[is_text] + 1) % 250
    return dataclasses.replace(row, input_ids=changed, labels=torch.where(row.labels == IGNORED, IGNORED, changed))


def other_photos(row: Encoded, processor: Processor) -> Encoded:
    return dataclasses.replace(row, pixel_values=row.pixel_values.flip(0) + 0.5)


@pytest.mark.parametrize("change", [other_words, other_photos])
def test_a_sample_changes_no_other_samples_loss(
    change: Any, ours: nn.Module, processor: Processor, rows: list[Encoded]
) -> None:
    before = sums_of(ours, rows, processor)
    for number, row in enumerate(rows):
        if change is other_photos and not len(row.pixel_values):
            continue
        after = sums_of(ours, [*rows[:number], change(row, processor), *rows[number + 1 :]], processor)
        differences = (after - before).abs()
        assert differences[number] > 1e-3
        differences[number] = 0
        assert differences.max() == 0.0  # the same numbers in the same order: not a rounding apart


def test_a_samples_loss_has_no_gradient_in_another(ours: Any, processor: Processor, rows: list[Encoded]) -> None:
    batch = PackedCollator(processor)(rows)
    embedded: list[Tensor] = []

    def remember(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    handle = ours.get_input_embeddings().register_forward_hook(remember)
    try:
        sums = sample_losses(ours, batch).sums
    finally:
        handle.remove()
    for number, loss in enumerate(sums):
        (gradient,) = torch.autograd.grad(loss, embedded, retain_graph=True)
        reached = [part.abs().max().item() for part in gradient[0].split(batch["cu_seqlens"].diff().tolist())]
        assert reached.pop(number) > 0
        assert max(reached) == 0.0


def test_photos_go_to_their_own_places(processor: Processor, tiny_model: Path) -> None:
    """Two photos of one size exchanged, where one is cached and one is not: each must stand where it belongs."""
    model = load_model(tiny_model)
    conversation = mixed_conversations()[4]
    exchanged = dataclasses.replace(conversation, photos=(drawn_photo(8, 84, 84), drawn_photo(9, 84, 84)))
    row = encode(exchanged, processor)
    seen: dict[str, Tensor] = {}
    model.keep_features = lambda keys, features: seen.update(zip(keys, features, strict=True))
    sums_of(model, with_features([row], dict.fromkeys(("a", "b"), torch.empty(0)), {"a": False, "b": False}), processor)
    expected = sums_of(model, [row], processor)
    features = dict(seen)
    wrong = {"a": features["b"], "b": features["a"]}
    for is_kept in ({"a": True, "b": False}, {"a": False, "b": True}, {"a": True, "b": True}):
        torch.testing.assert_close(sums_of(model, with_features([row], features, is_kept), processor), expected)
        assert (sums_of(model, with_features([row], wrong, is_kept), processor) - expected).abs() > 1e-2
