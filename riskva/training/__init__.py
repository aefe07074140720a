"""Training: a thin Trainer, recipe -> TrainingArguments, checkpoints, progress; the Trainer serves as a plugin too."""

from riskva.training.dataset import EncodedDataset
from riskva.training.trainer import RiskTrainer

__all__ = ["EncodedDataset", "RiskTrainer"]
