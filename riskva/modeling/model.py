"""Qwen2.5-VL that also takes samples packed into one row and gives their losses; otherwise it is transformers' own.

What differs in packed form: attention within samples and not over the row (`riskva.modeling.segments`), the windows of
a photo in one call and not one by one, features of photos that a cache has kept in place of the vision tower, the last
layer's MLP and the loss (`riskva.modeling.head`) at supervised positions alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, NamedTuple, cast

import torch
import transformers
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLConfig, Qwen2_5_VLTextConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VLAttention,
    Qwen2_5_VLDecoderLayer,
    Qwen2_5_VLVisionAttention,
    apply_rotary_pos_emb,
    apply_rotary_pos_emb_vision,
)
from transformers.vision_utils import get_vision_cu_seqlens, get_vision_position_ids, get_vision_window_index

from riskva.encoding import IGNORED
from riskva.modeling.head import SupervisedHead
from riskva.modeling.neftune import add_noise
from riskva.modeling.segments import attend_within

KeepFeatures = Callable[[Sequence[str], Sequence[Tensor]], None]


class SampleLosses(NamedTuple):
    """What a packed row of B samples gives; both (B,)."""

    sums: Tensor
    """Each sample's summed cross entropy, float32."""
    counts: Tensor
    """The number of supervised tokens that it is summed over."""


class Qwen2_5_VLForConditionalGeneration(  # type: ignore[no-untyped-call]  # noqa: N801
    transformers.Qwen2_5_VLForConditionalGeneration
):
    """transformers' class, by its name, which `save_pretrained` writes into config.json and vLLM looks for there."""

    def __init__(self, config: Qwen2_5_VLConfig) -> None:
        super().__init__(config)
        text, vision = cast(Any, config.text_config), cast(Any, config.vision_config)
        self.lm_head = SupervisedHead(text.hidden_size, text.vocab_size, bias=False)
        for index, layer in enumerate(self.model.language_model.layers):
            layer.self_attn = PackedAttention(text, index)
        self.model.language_model.layers[-1] = LastLayer(text, text.num_hidden_layers - 1)
        for block in self.model.visual.blocks:
            block.attn = BatchedVisionAttention(vision)
        self.keep_features: KeepFeatures | None = None
        """Gets the keys and features (tokens, H) of photos that the tower was run for, where the batch has keys."""
        self.always_runs_tower = False
        """Also for text alone: under ZeRO-3, and while it trains, all processes must run the tower or none."""
        self.neftune_noise_alpha: float | None = None

    @classmethod
    def is_custom_code(cls) -> bool:
        """False: the weights' names are those of transformers' own class, and are translated as its are."""
        return False

    @wraps(transformers.Qwen2_5_VLForConditionalGeneration.forward)  # generate() looks at the names of its arguments
    def forward(self, *args: Any, cu_seqlens: Tensor | None = None, **inputs: Any) -> Any:  # type: ignore[override]
        """`SampleLosses` of a batch of `riskva.encoding.PackedCollator`; of any other, what transformers gives."""
        if cu_seqlens is None:
            return super().forward(*args, **inputs)
        given = {name: value for name, value in inputs.items() if value is not None}  # PEFT adds some that are None
        return self._packed(cu_seqlens=cu_seqlens.cpu(), **given)

    def _packed(
        self,
        input_ids: Tensor,
        labels: Tensor,
        position_ids: Tensor,
        cu_seqlens: Tensor,
        label_smoothing: float = 0.0,
        **images: Any,
    ) -> SampleLosses:
        embedded = self.get_input_embeddings()(input_ids)
        if self.training and self.neftune_noise_alpha is not None:
            embedded = add_noise(embedded, cu_seqlens, self.neftune_noise_alpha)
        if self.always_runs_tower and "pixel_values" not in images:
            embedded = embedded + 0 * self._features_of_blank().sum()
        # The token at T + 1 is predicted at T; a sample's first token has no label.
        places = (labels[0, 1:] != IGNORED).nonzero().flatten()
        hidden = self.model(
            input_ids=input_ids,
            inputs_embeds=embedded,
            position_ids=position_ids,
            # Ready-made, so that transformers makes no mask over the whole row
            attention_mask=dict.fromkeys(("full_attention", "sliding_attention")),
            mm_encoder_outputs=self._encoded(**images),
            cu_seqlens=cu_seqlens,
            last_places=places,
            use_cache=False,
        ).last_hidden_state[0]
        losses = self.lm_head(hidden, labels[0, places + 1], label_smoothing)
        samples = torch.bucketize(places, cu_seqlens[1:].to(places.device), right=True)
        sums = torch.zeros(len(cu_seqlens) - 1, device=losses.device).index_add(0, samples, losses)
        return SampleLosses(sums, torch.bincount(samples, minlength=len(sums)))

    def _encoded(
        self,
        image_grid_thw: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_features: Tensor | None = None,
        has_features: Sequence[bool] | None = None,
        photo_keys: Sequence[str] | None = None,
    ) -> dict[str, BaseModelOutputWithPooling]:
        """The features of all photos in order, those of a cache and those that the tower makes, for transformers."""
        if image_grid_thw is None:
            return {}
        grids = image_grid_thw.cpu()
        is_kept = torch.tensor(has_features or [False] * len(grids))
        kept = iter(_cut(image_features, grids[is_kept], self._merge_unit))
        seen: Sequence[Tensor] = ()
        if pixel_values is not None:
            seen = self.photo_features(pixel_values, grids[~is_kept])
            if photo_keys and self.keep_features is not None:
                self.keep_features([key for key, one in zip(photo_keys, is_kept, strict=True) if not one], seen)
        made = iter(seen)
        ordered = tuple(next(kept) if one else next(made) for one in is_kept)
        return {"image": BaseModelOutputWithPooling(pooler_output=cast(Any, ordered))}

    def photo_features(self, pixel_values: Tensor, image_grid_thw: Tensor) -> Sequence[Tensor]:
        """What the tower makes of N photos, (tokens, H) each, of their patches (P, 1176) and grids (N, 3)."""
        grids = image_grid_thw.cpu()
        return _cut(self._run_tower(pixel_values, grids), grids, self._merge_unit)

    def _run_tower(self, pixel_values: Tensor, grids: Tensor) -> Tensor:
        """(F, H): the features of photos whose patches are (P, 1176) and whose grids (N, 3) are on the CPU."""
        visual, config = self.model.visual, cast(Any, self.config.vision_config)
        device = pixel_values.device
        window_index, cu_window_seqlens = get_vision_window_index(
            grids, visual.spatial_merge_size, visual.window_size, config.patch_size
        )
        # Lengths stay on the CPU, where every block reads them; the rest goes to the device once.
        features: Tensor = visual(
            pixel_values.type(visual.dtype),
            grid_thw=grids,
            position_ids=get_vision_position_ids(grids, visual.spatial_merge_size).to(device),
            cu_seqlens=get_vision_cu_seqlens(grids),
            window_index=window_index.to(device),
            cu_window_seqlens=cu_window_seqlens,
        ).pooler_output
        return features

    def _features_of_blank(self) -> Tensor:
        merge, config = self.model.visual.spatial_merge_size, cast(Any, self.config.vision_config)
        values = config.in_channels * config.temporal_patch_size * config.patch_size**2
        blank = torch.zeros(merge * merge, values, device=self.device)
        return self._run_tower(blank, torch.tensor([[1, merge, merge]]))

    @property
    def _merge_unit(self) -> int:
        """Patches that become one token."""
        return int(self.model.visual.spatial_merge_size) ** 2


class PackedAttention(Qwen2_5_VLAttention):
    """The language model's attention; with `cu_seqlens` every sample of a packed row sees itself alone."""

    def forward(  # type: ignore[override]
        self,
        hidden_states: Tensor,
        cu_seqlens: Tensor | None = None,
        position_embeddings: Any = None,
        places: Tensor | None = None,
        **others: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """As its parent, on (1, L, H); given `places` (S,), what comes out is (1, S, H), of those places alone."""
        if cu_seqlens is None:
            parent: Any = super()
            return cast(
                tuple[Tensor, Tensor | None],
                parent.forward(hidden_states, position_embeddings=position_embeddings, **others),
            )
        projections = (self.q_proj, self.k_proj, self.v_proj)
        query, key, value = (
            one(hidden_states).view(1, hidden_states.shape[1], -1, self.head_dim) for one in projections
        )
        query, key = apply_rotary_pos_emb(query, key, *position_embeddings, unsqueeze_dim=2)
        # Float32 where trained embeddings are, under autocast: kernels want the dtype of the values
        query, key = query.to(value.dtype), key.to(value.dtype)
        attended = attend_within(query[0], key[0], value[0], cu_seqlens, is_causal=True)
        if places is not None:
            attended = attended[places]
        return self.o_proj(attended.flatten(1)[None]), None


class LastLayer(Qwen2_5_VLDecoderLayer):  # type: ignore[no-untyped-call]
    """The language model's last layer, which computes what comes after its attention only where it is asked for."""

    def __init__(self, config: Qwen2_5_VLTextConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.self_attn = PackedAttention(config, layer_idx)

    def forward(self, hidden_states: Tensor, *args: Any, last_places: Tensor | None = None, **others: Any) -> Tensor:
        """(1, S, H) of (1, L, H): the S places whose tokens predict a supervised one; without them, all places."""
        if last_places is None:
            whole: Tensor = super().forward(hidden_states, *args, **others)
            return whole
        attended, _ = self.self_attn(self.input_layernorm(hidden_states), places=last_places, **others)
        hidden = hidden_states[:, last_places] + attended
        added: Tensor = hidden + self.mlp(self.post_attention_layernorm(hidden))
        return added


class BatchedVisionAttention(Qwen2_5_VLVisionAttention):
    """The vision tower's attention with windows of one length in one call; transformers has a call for each."""

    def forward(  # type: ignore[override]
        self, hidden_states: Tensor, cu_seqlens: Tensor, position_embeddings: Any = None, **_: Any
    ) -> Tensor:
        """(P, C) of (P, C): patches attend within the segments that `cu_seqlens` bounds."""
        num_patches = len(hidden_states)
        query, key, value = self.qkv(hidden_states).view(num_patches, 3, self.num_heads, -1).unbind(1)
        query, key = apply_rotary_pos_emb_vision(query, key, *position_embeddings)
        attended = attend_within(query, key, value, cu_seqlens, is_causal=False)
        projected: Tensor = self.proj(attended.reshape(num_patches, -1))
        return projected


def _cut(features: Tensor | None, grids: Tensor, merge_unit: int) -> Sequence[Tensor]:
    """Features (F, H) photo by photo."""
    return () if features is None else torch.split(features, (grids.prod(dim=1) // merge_unit).tolist())
