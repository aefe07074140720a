"""The README.md of an exported model: what it is, how it was proven, and how to ask it."""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from riskva.data.asking import Asking
from riskva.data.conversation import IMAGE_PLACEHOLDER
from riskva.encoding.template import DEFAULT_SYSTEM
from riskva.files import write_whole
from riskva.modeling.context import ModelContext
from riskva.modeling.export_check import Likeness
from riskva.modeling.resolving import asking_of
from riskva.recipe.key_groups import GenerationKeys

FILE_NAME = "README.md"

_PAGE = string.Template("""\
---
$front_matter---

# $title

Writes a risk report in Chinese for a photo of a building defect.

| | |
|---|---|
| Base | $base |
| Adapter (LoRA), merged into the base's weights | $adapter |
| Weights | $dtype |
| Merged by | RisKVA $version |

**AI 辅助，不替代鉴定。**

本模型看一张建筑缺陷照片，写出风险报告；报告供参考，须由专业人员复核。

The report is an aid: it does not replace the inspection and the judgement of a qualified
person.

## What it is asked, and what it answers

System prompt:

````text
$system_prompt
````

Question (`<image>` is where the photo stands):

````text
$question
````

The answer has one line for each of these fields:

````text
$fields
````

$level_field is one of 轻微, 中等 and 严重. An answer without one of them, or one that was cut off, is no report.

| | |
|---|---|
| Photos | between $min_pixels and $max_pixels pixels: larger and smaller ones are resized, by Pillow's bicubic |
| EXIF orientation | applied once, before the photo is resized |
| Answers | greedy, no repetition penalty; at most $max_new_tokens tokens |
| Training data | $fingerprint |
| Temperature of the level's probabilities | $temperature |
| Trained with | $versions |

`riskva.json` holds the same for programs.

## Proof

The files were loaded again and compared with base + adapter before they got their names:

| | |
|---|---|
| Largest difference of logits, on drawn photos of three sizes | $difference ($share of the largest logit) |
| Positions with the same likeliest token | $agreement |
| Weights | each is base + adapter rounded to its dtype, or the base's, bit for bit |
| Share of the adapter's change that rounding kept | $kept |

## With RisKVA

    riskva-run recipes/predict.yaml model_name_or_path=FOLDER adapter_name_or_path=null image=photo.jpg

or, in Python:

    import riskva

    print(riskva.load("FOLDER").report("photo.jpg").text)

$plain""")

_PLAIN = string.Template("""\
## With transformers alone

RisKVA is not needed, nor torchvision (without which `AutoProcessor` does not load this model). Run it in this folder:

```python
import torch
from PIL import Image, ImageOps
from transformers import AutoModelForImageTextToText, AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

folder, photo = ".", "photo.jpg"
system = $system
question = $question

device = "cuda" if torch.cuda.is_available() else "cpu"
tokenizer = AutoTokenizer.from_pretrained(folder)
image_processor = Qwen2VLImageProcessorPil.from_pretrained(folder)
model = AutoModelForImageTextToText.from_pretrained(folder, dtype="auto").to(device).eval()

image = ImageOps.exif_transpose(Image.open(photo)).convert("RGB")
limits = {"shortest_edge": $min_pixels, "longest_edge": $max_pixels}
patches = image_processor(images=[image], size=limits, return_tensors="pt")
num_tokens = int(patches["image_grid_thw"].prod()) // image_processor.merge_size**2
seen = "<|vision_start|>" + "<|image_pad|>" * num_tokens + "<|vision_end|>"
prompt = f"<|im_start|>system\\n{system}<|im_end|>\\n<|im_start|>user\\n{question}<|im_end|>\\n<|im_start|>assistant\\n"
text = tokenizer(prompt.replace("<image>", seen), return_tensors="pt")
is_image = text["input_ids"] == tokenizer.convert_tokens_to_ids("<|image_pad|>")
inputs = {**text, **patches, "mm_token_type_ids": is_image.long()}
with torch.no_grad():
    ids = model.generate(**{name: value.to(device) for name, value in inputs.items()}, max_new_tokens=$max_new_tokens)
print(tokenizer.decode(ids[0, text["input_ids"].shape[1] :], skip_special_tokens=True))
```
""")


@dataclass(frozen=True)
class ModelCard:
    """What the card of an export says. `base` and `adapter` are their names in the recipe, `dtype` the weights'."""

    context: ModelContext
    base: str
    adapter: str
    dtype: torch.dtype
    likeness: Likeness
    kept_share: float

    def save(self, folder: Path) -> None:
        """Write `README.md` into `folder`; the same export gives the same file."""
        with write_whole(folder / FILE_NAME) as stream:
            stream.write(self.text())

    def text(self) -> str:
        """The card as Markdown, with the hub's front matter."""
        asked, context = self._asked(), self.context
        return _PAGE.substitute(
            front_matter=self._front_matter(),
            title=f"{Path(self.base).name}, fine-tuned for reports on building defects",
            base=self.base,
            adapter=self.adapter,
            dtype=str(self.dtype).removeprefix("torch."),
            version=context.versions.get("riskva", "unknown"),
            system_prompt=asked.system_prompt or DEFAULT_SYSTEM,
            question=asked.question,
            fields="\n".join(f"**{label}**: …" for label in context.report_format.labels),
            level_field=next(one.label for one in context.report_format.fields if one.is_level),
            **self._settings(),
            fingerprint=f"fingerprint `{context.dataset_fingerprint}`" if context.dataset_fingerprint else "not known",
            temperature="not fitted" if context.level_temperature is None else f"{context.level_temperature:.4g}",
            versions=", ".join(f"{name} {version}" for name, version in context.versions.items()),
            difference=f"{self.likeness.difference:.2g}",
            share=f"{self.likeness.share:.1e}",
            agreement=f"{self.likeness.agreement:.2%}",
            kept=f"{self.kept_share:.2%}",
            plain=self._plain(asked),
        )

    def _asked(self) -> Asking:
        known = self.context.question
        return Asking(known, self.context.system_prompt) if known else asking_of(self.context)

    def _settings(self) -> dict[str, int]:
        limits = {"min_pixels": self.context.image_min_pixels, "max_pixels": self.context.image_max_pixels}
        return {**limits, "max_new_tokens": GenerationKeys().max_new_tokens}

    def _front_matter(self) -> str:
        values = {
            "language": ["zh"],
            "library_name": "transformers",
            "pipeline_tag": "image-text-to-text",
            "base_model": self.base,
            "tags": ["qwen2_5_vl", "riskva"],
        }
        return yaml.safe_dump(values, allow_unicode=True, sort_keys=False)

    def _plain(self, asked: Asking) -> str:
        """Code that runs; none for a model that is asked about several photos at once."""
        if asked.question.count(IMAGE_PLACEHOLDER) != 1:
            return ""
        system = asked.system_prompt or DEFAULT_SYSTEM
        return _PLAIN.substitute(system=repr(system), question=repr(asked.question), **self._settings())
