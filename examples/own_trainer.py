"""RisKVA's parts in a training script of one's own: no recipe, no command, transformers' Trainer as usual.

    python examples/own_trainer.py MODEL_FOLDER DATASET_FOLDER OUTPUT_FOLDER

DATASET_FOLDER is what `riskva-run recipes/prepare_parquet.yaml` wrote (or any folder with a dataset_info.json).
"""

import sys
from pathlib import Path

from peft import LoraConfig, get_peft_model
from transformers import TrainingArguments

from riskva.data.datasets import open_datasets
from riskva.encoding import PackedCollator, load_processor
from riskva.modeling.loading import load_model
from riskva.modeling.tuning import skip_gradients_of_frozen_tower
from riskva.training import EncodedDataset, RiskTrainer


def main(model_folder: Path, dataset_folder: Path, output_folder: Path) -> None:
    """Train a LoRA adapter of one's own choosing for one epoch."""
    processor = load_processor(model_folder, image_max_pixels=1024 * 1024)
    rows = open_datasets(["building_defect_train"], dataset_folder)
    model = load_model(model_folder)
    lora = LoraConfig(r=8, target_modules=r".*language_model.*\.(?:q_proj|v_proj)")
    model = get_peft_model(model, lora)
    skip_gradients_of_frozen_tower(model.get_base_model())

    trainer = RiskTrainer(
        model=model,
        args=TrainingArguments(str(output_folder), num_train_epochs=1, per_device_train_batch_size=2, report_to="none"),
        train_dataset=EncodedDataset(rows, processor),
        data_collator=PackedCollator(processor),
    )
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
