"""The work of `extract` on a shard: the features of its records, which any process on any machine can compute."""

import json
import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from eztorch_sce import distributed, signals
from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.dataset import EvaluationSampling
from eztorch_sce.data.loading import shard_loader
from eztorch_sce.data.members import shard_of as tar_of
from eztorch_sce.data.shard_batches import ShardSize, joined
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.data.sources.records import KINDS, Records
from eztorch_sce.errors import ConfigError
from eztorch_sce.evaluation.base import ExtractConfig
from eztorch_sce.evaluation.features import MeanOverViews, sampling_of
from eztorch_sce.evaluation.memory import Rows
from eztorch_sce.jobs.job import file_states
from eztorch_sce.jobs.work import LOADING, Output, Settings, Shard, Work
from eztorch_sce.models.backbones.base import Backbone
from eztorch_sce.models.modes import evaluation_mode
from eztorch_sce.models.network_config import describe_network, rebuild_network
from eztorch_sce.models.weights import load_weights, weights_file
from eztorch_sce.opening import BackboneSource, Opened
from eztorch_sce.precision import autocast, precision_on
from eztorch_sce.seeding import seed_everything
from eztorch_sce.types import Failure, InputSpec

COMPUTED = b"eztorch_sce.computed"
"""Key of an output's metadata: the kind of device and the precision that computed it."""
SPLITS = ("train", "test")


class Features(NamedTuple):
    """What this process has computed for a shard.

    Attributes:
        parts: Features of the records, in parts (n, F).
        records: Indices of the records of each part, (n,).
        failures: Records that could not be read.
    """

    parts: list[Tensor]
    records: list[Tensor]
    failures: list[Failure]


class ExtractWork(Work):
    """Computes the features of records, averaged over their clips and crops. A file that cannot be read is a failure.

    The batches of a shard depend on it alone, and so do its features, whoever computes them. Processes that were
    launched together share the batches of each shard: the first calls `process`, the others `follow`.

    Args:
        settings: See `of`.
        backbone: The network of the settings.
        loading: How the data are loaded.
        records: The records of all splits in the order of the job; None takes those of the rows of each shard.
    """

    command = "extract"

    def __init__(
        self, settings: Settings, backbone: Backbone, loading: DataConfig, records: Records | None = None
    ) -> None:
        self._settings, self._backbone, self._loading, self._records = settings, backbone, loading, records
        self.is_between = True  # whether the processes that follow wait for the next call

    @classmethod
    def of(cls, config: ExtractConfig, opened: Opened) -> "ExtractWork":
        """Return the work of the settings of the command, for the network and the records that it has opened."""
        splits, sampling = splits_of(opened), sampling_of(config.test, opened.spec)
        clips = [1 if split.records.all_images() else sampling.num_clips for split in splits]
        weights, is_random = opened.source.weights, opened.source.weights is None or opened.source.untrained
        settings = {
            "weights": None if weights is None else os.path.abspath(weights_file(weights.file)),
            "sha256": None if weights is None else weights.sha256,
            "seed": config.seed if is_random else None,
            "untrained": opened.source.untrained,
            "backbone": describe_network(opened.source.config),
            "input": asdict(opened.spec),
            "samplings": [sampling._replace(num_clips=number)._asdict() for number in clips],
            "decoder": config.data.decoder_name(),
            "accelerator": config.accelerator,
            "precision": config.precision,
            LOADING: {"prefetch": config.data.prefetch, "timeout_s": config.data.timeout_s},
        }
        if needs_this_process(opened):  # what is in memory now cannot be compared with what was before
            settings["objects"] = uuid.uuid4().hex
        all_records = [split.records for split in splits]
        records = all_records[0] if len(splits) == 1 else Records.concatenate(all_records)
        return cls(settings, opened.backbone, config.data, records)

    def settings(self) -> Settings:
        """See `Work.settings`."""
        return self._settings

    @classmethod
    def load(cls, settings: Settings) -> "ExtractWork":
        """See `Work.load`.

        Raises:
            ConfigError: If the weights are missing or others here, or there is no GPU although the settings require it.
        """
        if settings["accelerator"] == "gpu" and not torch.cuda.is_available():
            raise ConfigError(["accelerator=gpu but torch finds no GPU on this machine: use accelerator=auto"])
        file, spec, weights = settings["weights"], InputSpec(**settings["input"]), None
        if file is not None:
            weights = load_weights(file)
            if weights.sha256 != settings["sha256"]:
                difference = f"is another file here ({weights.sha256}) than where the job was started"
                raise ConfigError([f"weights={file} {difference} ({settings['sha256']}): copy that file"])
        config = rebuild_network(settings["backbone"], file or "the backbone of the job")
        seed_everything(settings["seed"] or 0)
        backbone = BackboneSource(config, spec, weights, file, settings["untrained"]).build(spec)
        return cls(settings, backbone, DataConfig(decoder=settings["decoder"], **settings[LOADING]))

    def process(
        self, shards: Iterable[Shard], num_workers: int | None, advance: Callable[[int], None]
    ) -> Iterator[Output]:
        """See `Work.process`."""
        shards = list(shards)
        if not self.is_between:  # an error has left the others in the middle of a shard
            raise RuntimeError("the processes that were launched together cannot go on: run the same command again")
        self.is_between = distributed.world_size() == 1
        distributed.from_first([shard.number for shard in shards])
        yield from self._outputs(shards, num_workers, advance)
        self.is_between = True

    def follow(self, shard: Callable[[int], Shard], num_workers: int | None) -> None:
        """Compute, in a process other than the first, its share of what the first does, until `end`.

        Args:
            shard: Returns the shard of a number.
            num_workers: Worker processes of this process.
        """
        while (numbers := distributed.from_first(list[int]())) is not None:
            for _ in self._outputs([shard(number) for number in numbers], num_workers, _unseen):
                pass

    def end(self) -> None:
        """Let the processes that follow go on with what comes after the job."""
        distributed.from_first(None)

    def _outputs(
        self, shards: Sequence[Shard], num_workers: int | None, advance: Callable[[int], None]
    ) -> Iterator[Output]:
        """Yield the output of each shard, the same in all processes."""
        device = distributed.local_device(self._settings["accelerator"])
        precision = precision_on(device, self._settings["precision"])
        computed = json.dumps({"device": device.type, "precision": precision})
        sizes = _sizes_of(shards, len(self._settings["samplings"]))
        all_features = self._features(shards, sizes, num_workers, advance, device, precision)
        for shard, (start, _), own in zip(shards, sizes, all_features, strict=True):
            failures = [each for part in distributed.all_objects(own.failures) for each in part]
            features, order = torch.empty(0, self._backbone.num_features), torch.empty(0, dtype=torch.long)
            if distributed.any_process(bool(own.parts)):
                features, records = (
                    distributed.gather_rows_of_some(parts, device) for parts in (own.parts, own.records)
                )
                order = records.argsort()
                features, order = features[order], records[order] - start
            keys = shard.rows["key"]
            reasons = {os.fsdecode(keys[each.record - start].as_py()): each.reason for each in failures}
            yield Output(shard.number, _table(keys, order, features, computed), reasons)

    @torch.no_grad()
    def _features(
        self,
        shards: Sequence[Shard],
        sizes: Sequence[ShardSize],
        num_workers: int | None,
        advance: Callable[[int], None],
        device: torch.device,
        precision: str,
    ) -> Iterator[Features]:
        """Yield what this process computes of each shard. The loader goes over all shards without a pause."""
        spec = InputSpec(**self._settings["input"])
        samplings = [EvaluationSampling(**each) for each in self._settings["samplings"]]
        loading = replace(self._loading, num_workers=num_workers)
        manifest = Manifest(self._records_of(shards), [], "the records of the job")
        loader, batches = shard_loader(loading, manifest, spec, samplings, sizes)
        means_of = MeanOverViews(self._backbone, lambda output: output, spec, device)
        loader.feed(device)
        pieces = iter(loader)
        try:
            for number, shard in enumerate(shards):
                own, means = Features([], [], []), Rows(device)
                batches_of_shard = batches.of_shard(number)
                with evaluation_mode(self._backbone), autocast(device, precision):
                    for batch in batches_of_shard:
                        signals.poll()
                        loaded = joined([next(pieces) for _ in batch])
                        if loaded.frames:
                            means.append(means_of(loaded))
                            own.records.append(loaded.record)
                        own.failures.extend(loaded.failures)
                        advance(sum(map(len, batch)))
                num_own = sum(len(piece) for batch in batches_of_shard for piece in batch)
                advance(len(shard.rows) - num_own)  # by other processes
                yield own._replace(parts=means.parts())
        finally:
            loader.end_workers(at_once=True)

    def _records_of(self, shards: Sequence[Shard]) -> Records:
        """Return the records of the shards, one shard after the other."""
        if self._records is not None:
            rows = [shard.rows["row"].to_numpy() for shard in shards]
            return self._records.take(np.concatenate([np.zeros(0, np.int64), *rows]))
        import pyarrow as pa

        table = pa.concat_tables([shard.rows for shard in shards])
        spans = np.stack([table[name].to_numpy() for name in ("start_s", "end_s")], axis=1)
        paths = [os.fsdecode(path) for path in table["path"].to_pylist()]
        kinds = [KINDS[kind] for kind in table["kind"].to_pylist()]
        return Records.from_columns(paths, kinds, segments=None if np.isnan(spans).all() else spans.tolist())


def _unseen(num_records: int) -> None:
    """Show no progress: the first process does."""


def _sizes_of(shards: Sequence[Shard], num_splits: int) -> list[ShardSize]:
    sizes, start = [], 0
    for shard in shards:
        counts = Counter(shard.rows["split"].to_pylist())
        sizes.append(ShardSize(start, [counts[split] for split in range(num_splits)]))
        start += len(shard.rows)
    return sizes


def splits_of(opened: Opened) -> list[Manifest]:
    """Return the splits in the order of the job: train, and test if there is one."""
    return [opened.train] if opened.test is None else [opened.train, opened.test]


def needs_this_process(opened: Opened) -> str:
    """Return what other processes cannot rebuild from settings, in words; empty if they can."""
    if any(split.records.has_source for split in splits_of(opened)):
        return "data of a source"
    return "a backbone passed as a Python object" if "object" in describe_network(opened.source.config) else ""


def records_table(splits: Sequence[Manifest], folder: str) -> Any:
    """Return the records of the splits as the Arrow table of a job.

    Args:
        splits: The splits.
        folder: Folder of the data. The keys hold paths relative to it, so that they are the same after a move.
    """
    import pyarrow as pa

    columns: dict[str, list[Any]] = {"key": [], "split": [], "path": [], "kind": []}
    spans, seen, folder = [], Counter[bytes](), os.path.join(os.path.abspath(folder), "")
    for number, split in enumerate(splits):
        records = split.records
        paths, segments = list(records.paths()), records.segments
        ends = np.full((len(paths), 2), np.nan) if segments is None else segments
        for path, (start_s, end_s) in zip(paths, ends.tolist(), strict=True):
            key = os.fsencode(f"{SPLITS[number]}\t{start_s}\t{end_s}\t{path.removeprefix(folder)}")
            seen[key] += 1
            columns["key"].append(b"%d\t%s" % (seen[key], key))
        columns["split"] += [number] * len(paths)
        columns["path"] += paths
        columns["kind"] += records.kind_codes.tolist()
        spans.append(ends)
    sizes, times = _states(splits, columns["path"])
    start_s, end_s = np.concatenate(spans).T.copy()
    paths_column = pa.array(map(os.fsencode, columns["path"]), pa.large_binary(), size=len(columns["path"]))
    return pa.table(
        {
            "key": pa.array(columns["key"], pa.large_binary()),
            "split": pa.array(columns["split"], pa.uint8()),
            "path": paths_column,
            "kind": pa.array(columns["kind"], pa.uint8()),
            "start_s": pa.array(start_s),
            "end_s": pa.array(end_s),
            "size": pa.array(sizes, pa.int64()),
            "mtime_ns": pa.array(times, pa.int64()),
        }
    )


def _states(splits: Sequence[Manifest], paths: list[str]) -> tuple[list[int], list[int]]:
    """Return the size and the modification time of each file, or of the tar file that it is in."""
    if any(split.records.has_source for split in splits):
        return [0] * len(paths), [0] * len(paths)
    files = [tar_of(path) or path for path in paths]
    distinct = list(dict.fromkeys(files))
    states = dict(zip(distinct, file_states(distinct), strict=True))
    return [states[file][0] for file in files], [states[file][1] for file in files]


def _table(keys: Any, order: Tensor, features: Tensor, computed: str) -> Any:
    """Return the output of a shard: the features (n, F) of the records at the places `order` (n,) of its keys."""
    import pyarrow as pa

    values = pa.array(np.ascontiguousarray(features.numpy(), np.float32).reshape(-1))
    columns = {
        "key": keys.take(pa.array(order.numpy())).combine_chunks(),
        "features": pa.FixedSizeListArray.from_arrays(values, features.shape[1]),
    }
    return pa.table(columns).replace_schema_metadata({COMPUTED: computed})
