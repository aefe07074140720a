"""Which evaluation is the best, and when patience is over, where scores are equal."""

from types import SimpleNamespace
from typing import Any

from transformers import TrainerControl, TrainerState
from transformers.trainer_utils import SaveStrategy

from riskva.training.callbacks import StopEarly
from riskva.training.trainer import RiskTrainer

ARGS: Any = SimpleNamespace(
    metric_for_best_model="risk_level_macro_f1", greater_is_better=True, save_strategy=SaveStrategy.STEPS
)


def evaluated(*pairs: tuple[float, float]) -> RiskTrainer:
    """A trainer whose evaluations, at steps 10, 20, …, had these scores and losses."""
    trainer = RiskTrainer.__new__(RiskTrainer)
    trainer.args, trainer.state = ARGS, TrainerState()
    for number, (score, loss) in enumerate(pairs, start=1):
        metrics = {"eval_risk_level_macro_f1": score, "eval_loss": loss}
        trainer.state.global_step = 10 * number
        trainer.state.log_history.append({**metrics, "step": 10 * number})
        trainer._determine_best_metric(metrics, None)
    return trainer


def test_until_a_report_can_be_read_the_lowest_loss_is_the_best() -> None:
    assert evaluated((0, 5.2), (0, 3.8), (0, 3.9)).state.best_global_step == 20
    assert evaluated((0, 5.2), (0, 3.8), (0.4, 9), (0.4, 8), (0.4, 8)).state.best_global_step == 40
    assert evaluated((0.5, 1.0), (0.4, 0.1)).state.best_global_step == 10


def test_patience_counts_from_the_best_of_equals() -> None:
    def stops(*pairs: tuple[float, float]) -> bool:
        control = StopEarly(2).on_evaluate(ARGS, evaluated(*pairs).state, TrainerControl())
        return bool(control.should_training_stop)

    assert not stops((0, 5.2), (0, 3.8), (0, 3.4), (0, 3.3))
    assert stops((0, 5.2), (0, 3.8), (0, 3.9), (0, 4.0))
    assert not stops((0.5, 1.0), (0.4, 0.1))
    assert stops((0.5, 1.0), (0.4, 0.1), (0.3, 0.1))
