"""Samples of the records that evaluations of a run used, with their features: what a page shows records from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from eztorch_sce.report.run_files import RunFiles

TRAIN, TEST = 0, 1
"""Values of `Sample.split`."""


@dataclass(frozen=True)
class Sample:
    """Records of both splits with the features of one network.

    Attributes:
        name: What the page calls the network.
        run: The run that the features are from: an evaluation, or else the run with the weights.
        features: float32 (N, F).
        labels: Class index, int64 (N,), -1 if unlabeled.
        paths: Paths of the N records.
        index: Row of each record in its split, int64 (N,).
        split: `TRAIN` or `TEST`, int64 (N,).
        classes: Class names; empty if unlabeled.
        evaluations: Runs that evaluated the same network, the one of the features first.
        segments: Start and end of each record in its file in seconds, float64 (N, 2), NaN where the file begins or
            ends; None if all records are whole files or an earlier version wrote the sample.
    """

    name: str
    run: RunFiles
    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    paths: Sequence[str]
    index: npt.NDArray[np.int64]
    split: npt.NDArray[np.int64]
    classes: Sequence[str]
    evaluations: Sequence[RunFiles] = ()
    segments: npt.NDArray[np.float64] | None = None

    @classmethod
    def of(cls, content: Mapping[str, Any], name: str, run: RunFiles, evaluations: Sequence[RunFiles] = ()) -> "Sample":
        """Return the sample with the content of a `sample.pt`."""
        segments = content.get("segments")
        return cls(
            name,
            run,
            content["features"].float().numpy() * content.get("scale", 1.0),
            content["labels"].long().numpy(),
            list(content["paths"]),
            content["index"].long().numpy(),
            content["split"].long().numpy(),
            list(content["classes"]),
            evaluations,
            None if segments is None else segments.double().numpy(),
        )

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def is_labeled(self) -> bool:
        """Whether any record has a label."""
        return bool((self.labels >= 0).any())

    def rows_by_key(self) -> dict[tuple[int, int], int]:
        """Return the row of each record by its split and its row in that split."""
        return {key: row for row, key in enumerate(zip(self.split.tolist(), self.index.tolist(), strict=True))}


def samples_of(runs: Sequence[RunFiles]) -> list[Sample]:
    """Return one sample for each network that runs or their evaluations have features of."""
    return [sample for run in runs for sample in samples_of_run(run, name_of=run.name if len(runs) > 1 else "")]


def samples_of_run(run: RunFiles, name_of: str = "") -> list[Sample]:
    """Return one sample for each network that a run or its evaluations have features of.

    Args:
        run: The run.
        name_of: What the page calls the run, if it shows several.
    """
    networks: dict[Any, list[RunFiles]] = {}
    for evaluation in (run, *run.evaluations):
        if evaluation.report and evaluation.command not in ("pretrain", "demo", "study", "show-views"):
            networks.setdefault(_network_of(evaluation), []).append(evaluation)
    samples = []
    for evaluations in networks.values():
        with_sample = next((each for each in evaluations if each.sample is not None), None)
        if with_sample is None or with_sample.sample is None:
            continue
        others = [each for each in evaluations if each is not with_sample]
        name = network_name(_kind_of(with_sample), name_of)
        samples.append(Sample.of(with_sample.sample, name, with_sample, [with_sample, *others]))
    return samples


def network_name(kind: str, name_of: str) -> str:
    """Return what the page calls a network: what it is and, if there are several runs, whose."""
    return f"{name_of} ({kind})" if name_of else kind


def _network_of(run: RunFiles) -> Any:
    """Return what identifies the network that a run evaluated; runs that trained one are apart."""
    weights = run.report.get("protocol", {}).get("weights") or {}
    if run.command == "finetune" or not weights:
        return run.directory
    return weights.get("sha256") or weights.get("object") or run.directory, bool(weights.get("untrained"))


def _kind_of(evaluation: RunFiles) -> str:
    weights = evaluation.report.get("protocol", {}).get("weights") or {}
    return "untrained" if weights.get("untrained") else "fine-tuned" if evaluation.command == "finetune" else "trained"


def keys_of(sample: Sample) -> Iterator[tuple[int, int]]:
    """Yield the split and the row in that split of each record."""
    return zip(sample.split.tolist(), sample.index.tolist(), strict=True)
