"""Features of both splits for an evaluation: extracted with a network, or read from the files that `extract` wrote."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from eztorch_sce.config.parts import EvaluationViewsConfig
from eztorch_sce.config.schema import ClassifierTestConfig, FinetuneConfig
from eztorch_sce.data.sources.labels import with_classes
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.distributed import local_device
from eztorch_sce.errors import ConfigError
from eztorch_sce.evaluation.base import EvaluationConfig, FeaturesConfig
from eztorch_sce.evaluation.features import RecordViews, read_features, record_features, record_views
from eztorch_sce.evaluation.linear import Probe, train_heads
from eztorch_sce.models.classifier import Classifier
from eztorch_sce.opening import (
    BackboneSource,
    Network,
    Opened,
    check_classes,
    check_num_classes,
    open_evaluation,
    open_for_extraction,
    open_labeled,
    open_test,
    summarize,
    summarize_features,
)
from eztorch_sce.precision import precision_on
from eztorch_sce.report.protocol import seen_card
from eztorch_sce.report.run_directory import open_run
from eztorch_sce.types import FeatureBank


def features_of_splits(
    config: FeaturesConfig, command: str, device: torch.device, backbone: Network | None, labeled: bool
) -> tuple[FeatureBank, FeatureBank | None, Path]:
    """Read or extract the features of both splits, after opening the run directory."""
    if config.features is not None:
        banks = read_features(config.features, labeled)
        if isinstance(config, EvaluationConfig):
            config.check_records(banks[0].labels, banks[1].labels, banks[0].classes)
        banks[1].protocol["data_summary"] = summarize_features(*banks, config.features)
        return banks[0], banks[1], open_run(command, config)

    opened, summary = open_for_features(config, backbone, labeled)
    run_dir = open_run(command, config)
    train = _extract(opened, opened.train, config, device, "train split")
    test = None if opened.test is None else _extract(opened, opened.test, config, device, "test split")
    for bank in [train] if test is None else [train, test]:
        bank.protocol |= records_card(opened, summary)
    return train, test, run_dir


def open_for_features(config: FeaturesConfig, backbone: Network | None, labeled: bool) -> tuple[Opened, dict[str, Any]]:
    """Open the data and the network of an evaluation or of `extract`, and return them with the summary of the data."""
    source = BackboneSource.of(config, backbone)
    open_data = open_labeled if labeled else open_for_extraction
    splits = open_data(config.data, config.seed, source)
    summary = summarize(splits)
    opened = open_evaluation(config.data, splits, source, config.seed)
    if isinstance(config, EvaluationConfig):
        train_labels, test_labels = (
            torch.from_numpy(split.records.labels).long() for split in (opened.train, opened.labeled_test)
        )
        config.check_records(train_labels, test_labels, opened.train.classes)
    return opened, summary


def open_classifier(config: ClassifierTestConfig, backbone: Network | None) -> tuple[Opened, dict[str, Any]]:
    """Open a classifier and the data to test it on, and return them with the summary of the data."""
    source = BackboneSource.from_weights(config.weights, backbone=backbone)
    if source.weights is None or source.weights.head is None:
        raise ConfigError(
            [f"weights={config.weights} contains no classifier: set weights to the run directory of `finetune`"]
        )
    splits, classes = open_test(config.data, config.seed, source), source.weights.classes
    if classes:
        splits = splits._replace(test=with_classes(splits.labeled_test, classes))
    summary = summarize(splits)
    opened = open_evaluation(config.data, splits, source, config.seed)
    if classes:
        check_classes(opened.labeled_test, classes)
    else:
        check_num_classes(opened.labeled_test, source.weights)
    return opened, summary


def _extract(
    opened: Opened, manifest: Manifest, config: FeaturesConfig, device: torch.device, title: str
) -> FeatureBank:
    return record_features(opened.backbone, views_of(config, opened, manifest, title, device), device)


def views_of(
    config: FeaturesConfig | FinetuneConfig | ClassifierTestConfig,
    opened: Opened,
    manifest: Manifest,
    title: str,
    device: torch.device,
) -> RecordViews:
    """Return the clips and crops of a split, to be computed in the precision of the evaluation or of the training.

    Args:
        config: The settings.
        opened: The data and the network.
        manifest: The records of the split.
        title: Title of the progress bar.
        device: The device of the network.
    """
    precisions = [getattr(config, "precision", None), getattr(getattr(config, "trainer", None), "precision", None)]
    precision = precision_on(device, next(filter(None, precisions), None))
    return record_views(config.data, config.test, opened.spec, manifest, title, precision)


def records_card(opened: Opened, summary: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a protocol card that tells which records were used, and with which weights."""
    card = {"data_summary": summary, "weights": opened.source.card()}
    if opened.test is not None:
        card["seen_in_pretraining"] = seen_card(opened.test.records, opened.source)
    return card


def start_from_probe(classifier: Classifier, opened: Opened, config: FinetuneConfig) -> None:
    """Initialize the linear layer of a classifier from a linear probe on one clip and crop of each train record."""
    device = local_device(config.trainer.accelerator)
    one_clip = replace(config, test=EvaluationViewsConfig(num_clips=1, num_crops=1))
    views = views_of(one_clip, opened, opened.train, "features for the initial classifier", device)
    bank = record_features(opened.backbone, views, device)
    heads = train_heads(bank, len(opened.train.classes), Probe(seed=config.seed), device)
    classifier.linear.load_state_dict(heads.heads[0].state_dict())
