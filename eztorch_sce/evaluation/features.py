"""Outputs of a frozen network for each record of a split: the mean over the record's clips and crops."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from eztorch_sce.augment.view import View, evaluation_view
from eztorch_sce.config.parts import EvaluationViewsConfig
from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.dataset import EvaluationSampling
from eztorch_sce.data.loading import TimedLoader, evaluation_loader, input_spec
from eztorch_sce.data.sources.labels import check_labels
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.distributed import gather_rows_of_some, raise_together
from eztorch_sce.errors import ConfigError, DamagedFileError, MediaError
from eztorch_sce.evaluation.banks import bank_messages, check_banks, non_finite_messages
from eztorch_sce.evaluation.memory import InChunks, Rows
from eztorch_sce.evaluation.sharded_rows import INDEX_FILE, stored_banks
from eztorch_sce.home_folders import with_home_folders
from eztorch_sce.models.backbones.base import as_backbone
from eztorch_sce.models.backbones.probing import device_of
from eztorch_sce.models.memory_format import to_channels_last
from eztorch_sce.models.modes import evaluation_mode
from eztorch_sce.precision import PRECISIONS, autocast, precision_on
from eztorch_sce.progress import track
from eztorch_sce.settings import invalid_settings
from eztorch_sce.types import Batch, FeatureBank, Features, InputSpec


class RecordViews(NamedTuple):
    """The clips and crops of each record of a split.

    Attributes:
        manifest: The records.
        spec: The input of the network.
        loader: Batches of raw clips and crops.
        protocol: Description of the clips and crops, for the report.
        title: Title of the progress bar.
        precision: Precision of the network, one of `precision.PRECISIONS`.
        skip_unreadable: Leave out files that cannot be read, as training does, instead of raising.
    """

    manifest: Manifest
    spec: InputSpec
    loader: TimedLoader
    protocol: dict[str, Any]
    title: str
    precision: str = "32-true"
    skip_unreadable: bool = False

    def labels(self, records: Int64[Tensor, " N"]) -> Int64[Tensor, " N"]:
        """Return the class index of each record, -1 if it has no label."""
        return torch.from_numpy(self.manifest.records.labels[records.numpy()]).long()

    def check_finite(self, scores: Float[Tensor, "N ..."], records: Int64[Tensor, " N"]) -> None:
        """Raise ConfigError if the scores of a record are NaN or infinite."""
        paths = [self.manifest.records.path(index) for index in records.tolist()]
        if messages := non_finite_messages(scores, paths, self.manifest.source, "scores"):
            raise ConfigError(messages)


def record_views(
    data: DataConfig,
    views: EvaluationViewsConfig,
    spec: InputSpec,
    manifest: Manifest,
    title: str,
    precision: str = "32-true",
) -> RecordViews:
    """Return the clips and crops of each record of a split.

    Args:
        data: Settings of the loader.
        views: Number and placement of the clips and crops.
        spec: The input of the network.
        manifest: The records.
        title: Title of the progress bar.
        precision: Precision of the network, one of `precision.PRECISIONS`; the protocol names it if it is not float32.
    """
    loader = evaluation_loader(data, manifest, spec, sampling_of(views, spec))
    protocol = views_card(data, views, spec, manifest, precision)
    return RecordViews(manifest, spec, loader, protocol, title, precision)


def sampling_of(views: EvaluationViewsConfig, spec: InputSpec) -> EvaluationSampling:
    """Return the clips and crops of each record, with the short side chosen.

    Raises:
        ConfigError: If the short side is less than the side of the crops.
    """
    short_side = views.short_side or spec.test_short_side
    if short_side < spec.size:
        cure = f"use at least {spec.size}, or test.short_side=null for {spec.test_short_side}"
        raise ConfigError([f"test.short_side={short_side} is less than the crops of {spec.size} pixels: {cure}"])
    return EvaluationSampling(views.num_clips, views.num_crops, short_side, views.clips)


def views_card(
    data: DataConfig, views: EvaluationViewsConfig, spec: InputSpec, manifest: Manifest, precision: str
) -> dict[str, Any]:
    """Return the description of the clips and crops of a split, for the report; see `record_views`."""
    num_clips = 1 if manifest.records.all_images() else views.num_clips
    card = {
        "data": manifest.source,
        "records": len(manifest.records),
        "input": asdict(spec),
        "clips": num_clips if views.clips == "even" else views.clips,
        "crops": views.num_crops,
        "short_side": sampling_of(views, spec).short_side,
        "decoder": data.decoder_name(),
    }
    return card if precision == "32-true" else card | {"precision": precision}


def extract_features(
    backbone: torch.nn.Module,
    data: DataConfig,
    spec: InputSpec | None = None,
    num_clips: int = 1,
    num_crops: int = 1,
    precision: str | None = None,
) -> FeatureBank:
    """Return the features of every record of the data, averaged over its clips and crops.

    The backbone runs in evaluation mode on its own device; its mode is restored. With several processes, call it in all
    of them: each computes its share, and all get the features of all records.

    Args:
        backbone: Maps clips (B, C, T, S, S) or images (B, C, S, S) to (B, F).
        data: The data; a train and a test split are joined.
        spec: The input that the backbone was trained on, such as `loader.spec`; None takes that of its weights file.
            Clip settings in `data` override it.
        num_clips: Evenly spaced clips per video.
        num_crops: Crops per clip: 1 (center) or 3 along the long side.
        precision: "32-true", "bf16-mixed" or "16-mixed"; None is bf16-mixed on GPUs that have it, 32-true elsewhere.

    Raises:
        ConfigError: If settings are invalid, files are missing, or features are NaN or infinite.
        MediaError: If a file cannot be read.
    """
    data = _checked(data)
    manifest = replace(data, pretrain_on="all").open_for_pretraining(seed=0).train
    views = EvaluationViewsConfig(num_clips=num_clips, num_crops=num_crops)
    return _bank_of(backbone, data, spec, manifest, views, precision)


def extract_splits(
    backbone: torch.nn.Module,
    data: DataConfig,
    spec: InputSpec | None = None,
    num_clips: int = 1,
    num_crops: int = 1,
    seed: int = 0,
    precision: str | None = None,
) -> tuple[FeatureBank, FeatureBank]:
    """Return the features of the train and the test split of labeled data; see `extract_features`.

    If the data have no test split, the records are held out that `training_loader` leaves out with the same seed.

    Raises:
        ConfigError: If settings are invalid, files or labels are missing, or features are NaN or infinite.
        MediaError: If a file cannot be read.
    """
    data = _checked(data)
    splits = data.open_with_test(seed)
    check_labels(splits)
    views = EvaluationViewsConfig(num_clips=num_clips, num_crops=num_crops)
    banks = [_bank_of(backbone, data, spec, split, views, precision) for split in (splits.train, splits.labeled_test)]
    return banks[0], banks[1]


def _checked(data: DataConfig) -> DataConfig:
    """Return the settings with full paths, or raise ConfigError if they are invalid."""
    data = with_home_folders(data)
    if messages := invalid_settings(data, "data"):
        raise ConfigError(messages)
    return data


def _bank_of(
    backbone: torch.nn.Module,
    data: DataConfig,
    spec: InputSpec | None,
    manifest: Manifest,
    views: EvaluationViewsConfig,
    precision: str | None,
) -> FeatureBank:
    messages = invalid_settings(views, "views")
    if precision not in (None, *PRECISIONS):
        messages.append(f"precision={precision!r} must be None or one of {', '.join(PRECISIONS)}")
    spec = spec or getattr(backbone, "input_spec", None)
    if spec is None:
        cure = "give spec=loader.spec of the loader that it was trained with, or spec=InputSpec(...)"
        messages.append(f"the input of the backbone is not known, since it was not loaded from a weights file: {cure}")
    if messages or spec is None:
        raise ConfigError(messages)
    spec = input_spec(data, manifest, spec)
    backbone = as_backbone(backbone, spec.num_frames, spec.size)
    device = device_of(backbone)
    views_of_records = record_views(data, views, spec, manifest, "features", precision_on(device, precision))
    return record_features(backbone, views_of_records, device)


def record_features(backbone: torch.nn.Module, views: RecordViews, device: torch.device) -> FeatureBank:
    """Return the pooled backbone features of each record, averaged over its clips and crops.

    Args:
        backbone: Maps (B, C, T, S, S) to (B, F); runs in evaluation mode.
        views: The clips and crops.
        device: The device to compute on.

    Raises:
        MediaError: If a file cannot be read.
        ConfigError: If features are NaN or infinite.
    """
    features, records = mean_over_views(backbone, lambda output: output, views, device)
    order = records.argsort()  # processes interleave
    records, features = records[order], features[order]
    bank = bank_of(features, records, views.manifest, views.protocol)
    if messages := bank_messages(bank, views.manifest.source, labeled=False):
        raise ConfigError(messages)
    return bank


def bank_of(
    features: Features,
    records: Int64[Tensor, " N"],
    manifest: Manifest,
    protocol: dict[str, Any],
) -> FeatureBank:
    """Return the features of some records of a manifest with their labels, paths, groups and segments.

    Args:
        features: Features.
        records: Indices of the records in the manifest.
        manifest: The records of the split.
        protocol: How the features were extracted.
    """
    index, all_records = records.numpy(), manifest.records
    groups, segments = all_records.groups, all_records.segments
    return FeatureBank(
        features,
        torch.from_numpy(all_records.labels[index]).long(),
        [all_records.path(each) for each in records.tolist()],
        manifest.classes,
        protocol,
        None if groups is None else torch.from_numpy(groups[index]),
        None if segments is None else torch.from_numpy(segments[index]),
    )


def read_features(folder: str, labeled: bool) -> tuple[FeatureBank, FeatureBank]:
    """Read the features of the train and test splits from the run directory of `extract`, or from its shards.

    Args:
        folder: The run directory, or a folder or URL of shards.
        labeled: Whether every record needs a label.

    Raises:
        ConfigError: If a file is missing, or the features cannot be used; see `check_banks`.
    """
    banks = stored_banks(folder)
    if banks is None:
        banks = [_read_bank(folder, split) for split in ("train", "test")]
    if len(banks) == 1:
        cure = "give labels or a test split when you extract them"
        raise ConfigError([f"features={folder} are those of one split, but this command needs two: {cure}"])
    check_banks(banks[0], banks[1], f"features={folder}", labeled)
    return banks[0], banks[1]


def _read_bank(run_dir: str, split: str) -> FeatureBank:
    file = Path(run_dir) / f"features_{split}.pt"
    if "://" in run_dir:
        raise ConfigError([f"features={run_dir} has no {INDEX_FILE}: give the URL that `extract` wrote to (out)"])
    if not file.is_file():
        raise ConfigError([f"features={run_dir}: {file} does not exist; give the run directory of `extract`"])
    try:
        return FeatureBank.load(file)
    except (DamagedFileError, TypeError) as error:  # TypeError: it holds something else
        reason = error.reason if isinstance(error, DamagedFileError) else "it holds no features"
        raise ConfigError([f"features={run_dir}: {file} is damaged ({reason}); run `extract` again"]) from error


class MeanOverViews:
    """The mean of `finish(network(view))` over the clips and crops of each record of a batch.

    All views of a batch go through the network together, in chunks that fit in the memory of the device. Call it in
    evaluation mode, without gradients and within `autocast`.

    Args:
        network: Maps (B, C, T, S, S) to (B, ...). It is moved to the device.
        finish: Function applied to each output, in float32, before averaging, such as softmax.
        spec: The input of the network.
        device: The device to compute on.
    """

    def __init__(
        self, network: torch.nn.Module, finish: Callable[[Tensor], Tensor], spec: InputSpec, device: torch.device
    ) -> None:
        self._outputs_of, self._device = InChunks(_on_raw_clips(network, finish, spec, device)), device

    def __call__(self, batch: Batch) -> Float[Tensor, "B ..."]:
        """Return the means of a batch that has frames, on the device, without waiting for it."""
        frames = batch.to(self._device, non_blocking=True).frames
        outputs = self._outputs_of(torch.cat(frames))  # (V * B, ...), one view after another
        means: Tensor = outputs.unflatten(0, (len(frames), -1)).mean(dim=0)
        return means


@torch.no_grad()
def mean_over_views(
    network: torch.nn.Module, finish: Callable[[Tensor], Tensor], views: RecordViews, device: torch.device
) -> tuple[Float[Tensor, "N ..."], Int64[Tensor, " N"]]:
    """Return the mean of `finish(network(view))` over the clips and crops of each record, and the records.

    The results stay on the device until the end: the host does not wait for it in between.

    Args:
        network: Maps (B, C, T, S, S) to (B, ...). It is moved to the device, and runs in evaluation mode.
        finish: Function applied to each output, in float32, before averaging, such as softmax.
        views: The clips and crops.
        device: The device to compute on.

    Raises:
        MediaError: If a file cannot be read.
    """
    means_of = MeanOverViews(network, finish, views.spec, device)
    views.loader.feed(device)
    means = Rows(device)
    records: list[Tensor] = []
    unreadable: MediaError | None = None
    with evaluation_mode(network), autocast(device, views.precision):
        for batch in track(views.loader, len(views.loader), f"{views.title}, batches"):
            if batch.failures and not views.skip_unreadable:
                unreadable = _first_failure(batch)
                break
            if not batch.frames:
                continue
            means.append(means_of(batch))
            records.append(batch.record)
    raise_together(unreadable)
    rows, indices = (gather_rows_of_some(parts, device) for parts in (means.parts(), records))
    return rows, indices


def _on_raw_clips(
    network: torch.nn.Module, finish: Callable[[Tensor], Tensor], spec: InputSpec, device: torch.device
) -> Callable[[Tensor], Tensor]:
    """Return the function from raw clips (n, C, T, S, S), uint8, to `finish` of the outputs (n, ...).

    It moves the network to the device, and on a GPU stores its weights with their channels last.
    """
    on_gpu = device.type == "cuda"
    normalize = View(evaluation_view(spec), channels_last=on_gpu).to(device)
    network.to(device)
    if on_gpu:
        to_channels_last(network)

    def outputs(clips: Tensor) -> Tensor:
        with autocast(device, "32-true"):
            inputs = normalize(clips)
        return finish(network(inputs).float())

    return outputs


def _first_failure(batch: Batch) -> MediaError:
    """Return an error that names the first file of the batch that could not be read."""
    first = batch.failures[0]
    more = "" if len(batch.failures) == 1 else f" (and {len(batch.failures) - 1} more in the same batch)"
    return MediaError(
        first.path, f"{first.reason}{more}. Evaluation requires every record: repair it or leave it out of the data"
    )
