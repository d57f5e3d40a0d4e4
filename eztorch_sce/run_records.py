"""The records of a run: its data, opened again, and features of them where nothing has evaluated its network yet."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import torch

from eztorch_sce import torch_file
from eztorch_sce.config.compose import commands, compose
from eztorch_sce.config.overrides import quoted
from eztorch_sce.config.parts import EvaluationViewsConfig
from eztorch_sce.config.plugin_words import with_plugins
from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.loading import input_spec
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.splits import Splits
from eztorch_sce.distributed import local_device
from eztorch_sce.errors import EXPLAINED, ConfigError, DamagedFileError
from eztorch_sce.evaluation.features import bank_of, mean_over_views, record_views
from eztorch_sce.files import replacing
from eztorch_sce.models.weights import hash_of, load_weights, weights_file
from eztorch_sce.opening import BackboneSource, open_evaluation, open_for_extraction, open_test
from eztorch_sce.progress import print_above
from eztorch_sce.report.run_files import RunFiles
from eztorch_sce.report.sample import joined_segments, sample_rows
from eztorch_sce.report.samples import Sample, network_name
from eztorch_sce.types import InputSpec


class OpenedRecords(NamedTuple):
    """The data of a run, opened again.

    Attributes:
        data: How records are loaded.
        splits: The records.
        spec: The input of the network.
    """

    data: DataConfig
    splits: Splits
    spec: InputSpec


def open_records(run: RunFiles, overrides: Sequence[str] = ()) -> OpenedRecords:
    """Open the data of a run again, divided as the run divided them.

    Args:
        run: A run on data, or an evaluation of the features of one.
        overrides: Settings that replace those of the run.

    Raises:
        ConfigError: If the settings of the run cannot be read, or the data are gone or are Python objects.
    """
    run = _with_data(run)
    config = settings_of_run(run, overrides)
    splits = _open_splits(run.command, config)
    spec = _spec_of(run, config, splits.train)
    return OpenedRecords(config.data, splits, spec)


def _with_data(run: RunFiles) -> RunFiles:
    """Return the run that opened the data: for features that were extracted before, the one that extracted them."""
    features = run.config.get("features")
    if not features:
        return run
    places = [Path(features).expanduser(), run.directory.parent / Path(features).name]
    for place in places:
        if (place / "config.yaml").is_file():
            return RunFiles(place, run.name)
    raise ConfigError([f"features={features} of {run.directory} do not exist any more"])


def settings_of_run(run: RunFiles, overrides: Sequence[str]) -> Any:
    """Return the config of a run, for this machine."""
    words = with_plugins([f"config={quoted(str(run.directory))}", *overrides])
    if run.command not in commands():
        raise ConfigError([f"{run.directory} is not the directory of a run on data"])
    config_class = commands()[run.command]
    names = {item.name for item in fields(config_class)}
    here = ["accelerator=auto", "precision=null"] if "accelerator" in names else []
    if "trainer" in names:
        here += ["trainer.accelerator=auto", "trainer.devices=null", "trainer.precision=null"]
    return compose(run.command, [*words, *here])


def _open_splits(command: str, config: Any) -> Splits:
    """Return the splits as the run divided them; if its weights are gone, as its seed divides them."""
    data: DataConfig = config.data
    if command in ("pretrain", "show-views"):
        return data.open_for_pretraining(config.seed)
    try:
        source = BackboneSource.of(config, None)
    except ConfigError:
        return data.open_with_test(config.seed)
    return open_test(data, config.seed, source) if command == "test" else open_for_extraction(data, config.seed, source)


def _spec_of(run: RunFiles, config: Any, train: Manifest) -> InputSpec:
    """Return the input of the network: as reported, of the weights, or that of the settings."""
    if reported := run.report.get("protocol", {}).get("input"):
        known = {item.name for item in fields(InputSpec)}
        return InputSpec(**{name: value for name, value in reported.items() if name in known})
    base = InputSpec()
    if weights_file(run.directory).is_file():
        base = load_weights(str(run.directory)).spec
    return input_spec(config.data, train, base)


def extracted_samples(run: RunFiles, overrides: Sequence[str], name_of: str) -> list[Sample]:
    """Return a sample of the data of a run with features of its network, from its cache or extracted now.

    Labels are not needed. The list is empty if the run has no weights; a line says why if its data cannot be read.

    Args:
        run: The run, or a folder with one.
        overrides: Settings that replace those of the run, such as `data.root=...`.
        name_of: What the page calls the run, if it shows several.
    """
    trained = next((each for each in (run, *run.evaluations) if weights_file(each.directory).is_file()), None)
    if trained is None or trained.command not in ("pretrain", "finetune"):
        return []
    weights = hash_of(weights_file(trained.directory))
    file = trained.directory / "report" / "sample.pt"
    content: dict[str, Any] | None = None
    if file.is_file():
        with suppress(DamagedFileError):  # of a cache, whose content is extracted again
            content = torch_file.read(file)
    if content is None or content["weights"] != weights:
        try:
            content = {**_extract(trained, overrides), "weights": weights}
        except EXPLAINED as error:
            print_above(f"note: no map of {run.name}: {str(error).removeprefix('- ')}")
            return []
        _keep(content, file)
    kind = "fine-tuned" if trained.command == "finetune" else "trained"
    return [Sample.of(content, network_name(kind, name_of), trained)]


def _extract(run: RunFiles, overrides: Sequence[str]) -> dict[str, Any]:
    """Return features of some records of both splits, in the form of `sample.pt`; unreadable records are left out."""
    config = settings_of_run(run, overrides)
    splits = _open_splits(run.command, config)
    source = BackboneSource.from_weights(str(run.directory))
    opened = open_evaluation(config.data, splits, source, config.seed)
    device = local_device("auto")
    test_labels: Any = [] if opened.test is None else opened.test.records.labels
    parts: list[dict[str, Any]] = []
    for split, rows in enumerate(sample_rows(opened.train.records.labels, test_labels)):
        manifest = opened.train if split == 0 else opened.test
        if manifest is None or not len(rows):
            continue
        chosen = manifest.with_records(manifest.records.take(rows), manifest.source)
        one_clip = EvaluationViewsConfig(num_clips=1, num_crops=1)
        title = f"features of the {('train', 'test')[split]} split for the map"
        views = record_views(config.data, one_clip, opened.spec, chosen, title)._replace(skip_unreadable=True)
        features, records = mean_over_views(opened.backbone, lambda output: output, views, device)
        order = records.argsort()
        features, records = features[order].cpu(), records[order].cpu()
        parts.append(
            {
                "features": features,
                "labels": views.labels(records),
                "paths": [chosen.records.path(record) for record in records.tolist()],
                "index": torch.from_numpy(rows)[records],
                "split": torch.full((len(records),), split, dtype=torch.uint8),
                "segments": bank_of(features, records, views.manifest, views.protocol).segments,
            }
        )
    joined: dict[str, Any] = {
        name: torch.cat([part[name] for part in parts]) for name in ("features", "labels", "index", "split")
    }
    joined["segments"] = joined_segments([(len(part["paths"]), part["segments"]) for part in parts])
    return joined | {"paths": [path for part in parts for path in part["paths"]], "classes": opened.train.classes}


def _keep(content: dict[str, Any], file: Path) -> None:
    """Write a sample to the cache of its run, unless the run may only be read."""
    try:
        file.parent.mkdir(exist_ok=True)
        with replacing(file) as partial:
            torch.save(content, partial)
    except OSError as error:
        print_above(f"note: {file} cannot be written ({error.strerror}): features will be extracted again next time")
