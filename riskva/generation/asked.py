"""What a recipe asks of which model: everything that is known before its weights are loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from evaluation.predictions import FILE_NAME
from riskva.console import note
from riskva.data.datasets import ConversationDataset, open_datasets
from riskva.data.grey_photos import GreyPhotos
from riskva.data.photo_inputs import Inputs, open_inputs
from riskva.data.verification import Verify, verify_datasets
from riskva.encoding import Processor, load_processor
from riskva.modeling.context import ModelContext
from riskva.modeling.loading import locate_model_and_adapter
from riskva.modeling.resolving import asking_of, context_without_model, resolve_context
from riskva.recipe import CalibrateRecipe, EvalRecipe, PredictRecipe

AnsweringRecipe = PredictRecipe | CalibrateRecipe | EvalRecipe

BLANKED_FILE = "blanked_predictions.jsonl"
TEST_FILE = "test_predictions.jsonl"


@dataclass(frozen=True)
class Asked:
    """A recipe's model as it was taught, before its weights are loaded."""

    recipe: AnsweringRecipe

    @cached_property
    def place(self) -> tuple[Path, Path | None]:
        """The folders of the model and of the adapter on it."""
        return locate_model_and_adapter(self.recipe.model_name_or_path, self.recipe.adapter_name_or_path)

    @cached_property
    def context(self) -> ModelContext:
        """How the model sees photos and is asked, the recipe's own values before what it was taught."""
        if isinstance(self.recipe, PredictRecipe) and self._is_elsewhere(self.recipe):
            return context_without_model(self.recipe.model_name_or_path, self._data_folder, self.recipe)
        answer_keys = self.recipe if isinstance(self.recipe, PredictRecipe | EvalRecipe) else None
        return resolve_context(self.recipe, self._data_folder, answer_keys)

    @property
    def _data_folder(self) -> Path | None:
        """Where data sets are described; a folder of photos has nothing to do with them."""
        names = self.recipe.data_sets if isinstance(self.recipe, PredictRecipe) else self.recipe.eval_dataset
        return self.recipe.dataset_dir if names else None

    def _is_elsewhere(self, recipe: PredictRecipe) -> bool:
        """Whether an endpoint has the model and there is no folder of it here."""
        is_here = Path(recipe.model_name_or_path).expanduser().is_dir()
        return recipe.infer_backend == "openai_batch" and not is_here and recipe.adapter_name_or_path is None

    @cached_property
    def processor(self) -> Processor:
        """The model's processor under the context's pixel limits."""
        return load_processor(self.place[0], self.context.image_max_pixels, self.context.image_min_pixels)

    def rows(self, verify: Verify) -> Inputs:
        """What the recipe answers; the files of data sets compared with their manifest as `verify` says."""
        recipe = self.recipe
        if isinstance(recipe, PredictRecipe) and recipe.images is not None:
            if recipe.eval_dataset:
                note(f"images: {recipe.images} is answered, and not eval_dataset: {', '.join(recipe.eval_dataset)}")
            return open_inputs(recipe.images, asking_of(self.context), recipe.max_samples, recipe.media_dir)
        return self._dataset(recipe.eval_dataset, verify)

    def _dataset(self, names: Sequence[str], verify: Verify) -> ConversationDataset:
        recipe = self.recipe
        verify_datasets(names, recipe.dataset_dir, recipe.media_dir, verify)
        return open_datasets(names, recipe.dataset_dir, recipe.media_dir, recipe.max_samples)

    def wanted(self, verify: Verify) -> dict[str, Inputs]:
        """What is to be answered, by the name of the file that the answers go to."""
        recipe, rows = self.recipe, self.rows(verify)
        wanted: dict[str, Inputs] = {FILE_NAME: rows}
        if isinstance(recipe, EvalRecipe) and recipe.blank_photos:
            assert isinstance(rows, ConversationDataset)
            wanted[BLANKED_FILE] = GreyPhotos(rows)
        if isinstance(recipe, CalibrateRecipe) and recipe.test_dataset:
            wanted[TEST_FILE] = self._dataset(recipe.test_dataset, verify)
        return wanted

    @property
    def source(self) -> str:
        """What the recipe answers, in words."""
        recipe = self.recipe
        if isinstance(recipe, PredictRecipe) and recipe.images is not None:
            return str(recipe.images)
        more = recipe.test_dataset if isinstance(recipe, CalibrateRecipe) else ()
        return ", ".join([*recipe.eval_dataset, *more])

    @property
    def temperature(self) -> float:
        """What probabilities are tempered by; what is to be calibrated must not be already."""
        known = self.context.level_temperature
        return 1.0 if known is None or isinstance(self.recipe, CalibrateRecipe) else known

    @property
    def inputs(self) -> list[Path | str | None]:
        """What the recipe reads, and overwriting must not delete."""
        images = self.recipe.images if isinstance(self.recipe, PredictRecipe) else None
        return [
            self.recipe.model_name_or_path or None,
            self.recipe.adapter_name_or_path,
            self.recipe.dataset_dir,
            images,
        ]
