"""Features of both splits for an evaluation: extracted with a network, or read from the files that `extract` wrote."""

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from eztorch_sce import distributed, registry
from eztorch_sce.config.parts import EvaluationViewsConfig
from eztorch_sce.config.schema import ClassifierTestConfig, FinetuneConfig
from eztorch_sce.data.sources.labels import with_classes
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.distributed import local_device
from eztorch_sce.errors import ConfigError, MediaError
from eztorch_sce.evaluation.base import EvaluationConfig, ExtractConfig, FeaturesConfig
from eztorch_sce.evaluation.features import (
    RecordViews,
    read_features,
    record_features,
    record_views,
    sampling_of,
    views_card,
)
from eztorch_sce.evaluation.linear import Probe, train_heads
from eztorch_sce.evaluation.sharded_rows import INDEX_FILE
from eztorch_sce.extraction_merge import Result, failed_records, merged_banks, report_failed, stored_banks
from eztorch_sce.extraction_work import SPLITS, ExtractWork, needs_this_process, records_table, splits_of
from eztorch_sce.files import write_text
from eztorch_sce.host_memory import total_bytes
from eztorch_sce.jobs.driver import check_new_job, finish_job, rehearse_job
from eztorch_sce.jobs.job import Job
from eztorch_sce.jobs.runners.base import Runner
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
from eztorch_sce.progress import print_above
from eztorch_sce.report.protocol import seen_card
from eztorch_sce.report.run_decision import SHARDS
from eztorch_sce.report.run_directory import open_run
from eztorch_sce.types import FeatureBank, Report


def features_of_splits(
    config: EvaluationConfig, command: str, device: torch.device, backbone: Network | None
) -> tuple[FeatureBank, FeatureBank, Path]:
    """Read or extract the features of both splits, after opening the run directory."""
    if config.features is not None:
        banks = read_features(config.features, labeled=True)
        config.check_records(banks[0].labels, banks[1].labels, banks[0].classes)
        banks[1].protocol["data_summary"] = summarize_features(*banks, config.features)
        return banks[0], banks[1], open_run(command, config)

    opened, summary = open_for_features(config, backbone, labeled=True)
    run_dir = open_run(command, config)
    train = _extract(opened, opened.train, config, device, "train split")
    test = _extract(opened, opened.labeled_test, config, device, "test split")
    for bank in (train, test):
        bank.protocol |= records_card(opened, summary)
    return train, test, run_dir


def extract_to_run(config: ExtractConfig, backbone: Network | None, device: torch.device) -> Report:
    """Compute the features of both splits in shards, write them to the run directory, and return the report.

    A run that was interrupted goes on with the shards that it has not done. Every process that was launched calls this.

    Raises:
        ConfigError: If settings are invalid, files are missing, features are NaN or infinite, or shards have failed.
        MediaError: If files cannot be read, and are not omitted.
    """
    opened, summary = open_for_features(config, backbone, labeled=False)
    runner = config.runner.build()
    check_runner(runner, config, opened)
    check_new_job(config.out or os.path.join(config.run.dir or "runs", SHARDS), runner, config.data.num_workers)
    run_dir = open_run("extract", config)
    work = ExtractWork.of(config, opened)
    job = _created_job(work, config, opened, config.out or str(run_dir / SHARDS))
    precision = precision_on(device, config.precision)
    cards = [
        views_card(config.data, config.test, opened.spec, split, precision) | records_card(opened, summary)
        for split in splits_of(opened)
    ]
    report, error = Report("extract", {}, cards[0], run_dir), None
    with job.held() if distributed.rank() == 0 else nullcontext():
        _work_on_shards(job, work, runner, config.data.num_workers)
        if distributed.rank() == 0:
            try:
                failed = failed_records(job)
                report_failed(failed, job.num_records, config, run_dir)
                banks = _write_features(Result(job, splits_of(opened), cards, failed), config, opened, run_dir)
                report = replace(report, metrics=_counts(banks), protocol=banks[0].protocol)
            except (ConfigError, MediaError) as problem:
                error = problem
    distributed.raise_together(error)
    return report


def _counts(banks: Sequence[FeatureBank]) -> dict[str, float]:
    counts = {f"{name}_records": float(len(bank.features)) for name, bank in zip(SPLITS, banks, strict=False)}
    return counts | {"features": float(banks[0].features.shape[1])}


def _write_features(result: Result, config: ExtractConfig, opened: Opened, run_dir: Path) -> list[FeatureBank]:
    """Write the features as files of the run directory, or leave them in shards if they are large or `out` is set."""
    num_features = opened.backbone.num_features
    if config.out is None and 4 * num_features * result.job.num_records <= total_bytes() // 2:
        banks = merged_banks(result)
        for name, bank in zip(SPLITS, banks, strict=False):
            bank.save(run_dir / f"features_{name}.pt")
        shutil.rmtree(run_dir / SHARDS)
        return banks
    banks = stored_banks(result, num_features)
    folder = SHARDS if config.out is None else config.out
    if "://" not in folder and config.out is not None:
        folder = os.path.abspath(folder)
    write_text(run_dir / INDEX_FILE, json.dumps({"folder": folder}) + "\n")
    print_above(f"the features stay in shards in {result.job.store.folder}: read them with features={run_dir}")
    return banks


def check_runner(runner: Runner, config: ExtractConfig, opened: Opened) -> None:
    """Raise ConfigError if the runner is not this machine, but the work is bound to it."""
    if runner.is_local:
        return
    name = registry.name_of(config.runner)
    if what := needs_this_process(opened):
        cure = "other processes build their work from settings alone; use runner=local"
        raise ConfigError([f"runner={name} cannot extract features with {what}: {cure}"])
    if distributed.world_size() > 1:
        count = f"but {distributed.world_size()} were launched: start the command once"
        raise ConfigError([f"runner={name} starts its own processes, {count}"])


def rehearse_shards(config: ExtractConfig, opened: Opened, run_dir: Path) -> list[str]:
    """Return lines that tell which shards are left in a run directory, and how the runner would work on them.

    Raises:
        ConfigError: If the runner cannot do the work.
    """
    runner = config.runner.build()
    check_runner(runner, config, opened)
    records = records_table(splits_of(opened), str(config.data.folder()))
    folder = config.out or str(run_dir / SHARDS)
    job = Job.planned(folder, ExtractWork.of(config, opened), records, config.runner.shard_records)
    return rehearse_job(job, runner)


def _created_job(work: ExtractWork, config: ExtractConfig, opened: Opened, folder: str) -> Job:
    """Return the job in a folder, which the first process has created and locked."""
    created: list[Job] = []

    def create() -> str:
        records = records_table(splits_of(opened), str(config.data.folder()))
        created.append(Job.create(folder, work, records, config.runner.shard_records))
        return folder

    place = distributed.decide_together(create)
    return created[0] if created else Job.open(place)


def _work_on_shards(job: Job, work: ExtractWork, runner: Runner, num_workers: int | None) -> None:
    """Finish a job by all processes that were launched."""
    error = None
    if distributed.rank() == 0:
        try:
            finish_job(job, work, runner, num_workers)
        except ConfigError as problem:
            if not work.is_between:  # the others compute a shard; they end with this process
                raise
            error = problem
        work.end()
    else:
        work.follow(job.shard, num_workers)
    distributed.raise_together(error)


def open_for_features(config: FeaturesConfig, backbone: Network | None, labeled: bool) -> tuple[Opened, dict[str, Any]]:
    """Open the data and the network of an evaluation or of `extract`, and return them with the summary of the data."""
    source = BackboneSource.of(config, backbone)
    open_data = open_labeled if labeled else open_for_extraction
    splits = open_data(config.data, config.seed, source)
    summary = summarize(splits)
    opened = open_evaluation(config.data, splits, source, config.seed)
    sampling_of(config.test, opened.spec)  # raises before anything is written
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
    sampling_of(config.test, opened.spec)  # raises before anything is written
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
