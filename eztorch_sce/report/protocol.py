"""Protocol cards: the settings that make the numbers of a report comparable."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from eztorch_sce.config.compose import settings_of
from eztorch_sce.config.fit import Choice
from eztorch_sce.config.parts import CommandConfig
from eztorch_sce.config.schema import FinetuneConfig, PretrainConfig
from eztorch_sce.data.sources import provenance
from eztorch_sce.data.sources.records import Records
from eztorch_sce.evaluation.base import EvaluationConfig, FeaturesConfig
from eztorch_sce.evaluation.linear import LinearConfig
from eztorch_sce.opening import BackboneSource, Opened
from eztorch_sce.optim.groups import effective_lr
from eztorch_sce.settings import chosen

_TRAINING_SETTINGS = (
    "backbone",
    "method",
    "loss",
    "views",
    "optimizer",
    "lrs",
    "schedule",
    "standardize",
    "dropout",
    "probe_first",
    "layer_decay",
    "mixup",
)


def pretraining_card(config: PretrainConfig, opened: Opened, choices: Sequence[Choice]) -> dict[str, Any]:
    """Return the records, the input and the settings of a pretraining, and what was chosen from the data."""
    return {
        "data": opened.train.source,
        "records": len(opened.train.records),
        "input": asdict(opened.spec),
        "training": training_card(config),
        "chosen": [str(choice) for choice in choices],
    }


def run_card(config: CommandConfig) -> dict[str, Any]:
    """Return what a run started from: the recipe, or None, and the seed."""
    return {"recipe": config.recipe, "seed": config.seed}


def training_card(config: PretrainConfig | FinetuneConfig | LinearConfig) -> dict[str, Any]:
    """Return the settings of a training that affect its result."""
    card = {name: settings_of(getattr(config, name)) for name in _TRAINING_SETTINGS if hasattr(config, name)}
    if isinstance(config, LinearConfig) and len(config.probe().lrs) > 1:
        card["select_on"] = config.select_on
        if config.select_on == "validation":
            card["validation_fraction"] = config.validation_fraction
    card |= {name: getattr(config.trainer, name) for name in ("precision", "accumulate")}
    card |= {"max_epochs": config.trainer.epochs, "batch_size": config.data.samples_per_step}
    card |= {"near_power": config.data.near_power}
    return card | {"effective_lr": effective_lr(chosen(config.optimizer).lr, config.data.samples_per_step)}


def evaluation_card(config: EvaluationConfig) -> dict[str, Any]:
    """Return the settings that are specific to an evaluation, without those that all evaluations have."""
    if isinstance(config, LinearConfig):
        return {"training": training_card(config)}
    shared = {item.name for item in fields(FeaturesConfig)}
    return {item.name: settings_of(getattr(config, item.name)) for item in fields(config) if item.name not in shared}


def train_card(card: dict[str, Any]) -> dict[str, Any]:
    """Return the card of the train features without what the card of the test features tells for both."""
    return {name: value for name, value in card.items() if name not in ("data_summary", "seen_in_pretraining")}


def seen_card(test: Records, source: BackboneSource) -> dict[str, Any]:
    """Return how many test records the weights have been trained on, without their labels.

    Returns:
        "seen" and "test_records", and "reason" if "seen" is None because it is not known.
    """
    if source.untrained:
        return {"seen": 0, "test_records": len(test)}
    return provenance.seen_card(test, source.provenance)
