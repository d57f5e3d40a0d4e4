"""The card of an exported network: what people and programs must know to use it, in types of JSON."""

import json
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from eztorch_sce import __version__
from eztorch_sce.augment.statistics import normalization_of
from eztorch_sce.metric_facts import HIGHER, MetricFacts, facts_of
from eztorch_sce.models.weights import Weights, weights_file
from eztorch_sce.types import InputSpec

_LICENSE_CHARACTERS = frozenset(string.ascii_letters + string.digits + ".-+_")
_NOT_RESULTS = ("pretrain", "extract")  # commands whose metrics do not measure the network


def card_of(weights: Weights, takes_clips: bool, run: Path, license: str | None) -> dict[str, Any]:
    """Return the card of a network.

    Args:
        weights: Its weights.
        takes_clips: Whether its inputs are clips.
        run: The run directory or file that they were read from. The results are beside the file.
        license: Identifier of the license, or None for that of an earlier card.
    """
    file = weights_file(run)
    report = _read(file.parent / "report.json") if weights_file(file.parent) == file else {}
    protocol, outputs = report.get("protocol", {}), {"features": "(B, F)"}
    if weights.head is not None:
        outputs["logits"] = f"(B, {len(weights.head['bias'])})"
    new = {
        "architecture": weights.network,
        "preprocessing": preprocessing_of(weights.spec, takes_clips),
        "outputs": outputs,
        "license": license,
        "recipe": protocol.get("recipe"),
        "training": protocol.get("training"),
        "trained_with": {name: each for name, each in report.get("versions", {}).items() if name != "platform"} or None,
        "exported_with": {"eztorch_sce": __version__, "torch": str(torch.__version__)},
        "results": list(_results(file.parent, report, weights.sha256)) or None,
        "source_sha256": weights.sha256,
    }
    return weights.about | {name: value for name, value in new.items() if value is not None}


def check_license(license: str | None) -> Iterator[str]:
    """Yield why a license is not an identifier."""
    if license is not None and not (license and _LICENSE_CHARACTERS.issuperset(license)):
        known = "such as apache-2.0, mit, cc-by-4.0, cc-by-nc-4.0 or other"
        yield f"license={license} must be an identifier of letters, digits and .-+_, {known}"


def preprocessing_of(spec: InputSpec, takes_clips: bool) -> dict[str, Any]:
    """Return how pixels become the input of a network, in numbers and in words."""
    normalization = normalization_of(spec.stats)
    shape = ["B", 3, *([spec.num_frames] if takes_clips else []), spec.size, spec.size]
    return {
        "shape": shape,
        "axes": "B C T H W" if takes_clips else "B C H W",
        "color": "RGB",
        "pixels": "float32 in [0, 1]",
        "num_frames": spec.num_frames,
        "clip_s": None if spec.frame_stride is not None else spec.clip_s,
        "frame_stride": spec.frame_stride,
        "short_side": spec.test_short_side,
        "crop": spec.size,
        "interpolation": "bilinear, antialiased",
        "input": spec.input,
        "mean": None if normalization is None else normalization["mean"],
        "std": None if normalization is None else normalization["std"],
        "steps": list(_steps(spec, takes_clips)),
    }


def _steps(spec: InputSpec, takes_clips: bool) -> Iterator[str]:
    """Yield the steps from a file to the input, in words."""
    if spec.num_frames > 1:
        apart = f"{spec.frame_stride} frames apart" if spec.frame_stride else f"that span {spec.clip_s:g} seconds"
        yield f"Take {spec.num_frames} frames {apart}, in RGB."
    else:
        yield "Take an image, or one frame of a video, in RGB."
    yield f"Resize the short side to {spec.test_short_side} pixels, bilinear with antialiasing."
    yield f"Crop the central {spec.size} x {spec.size} pixels, and divide the values by 255."
    if spec.input == "difference":
        yield "Convert each frame to gray: 0.2989 R + 0.587 G + 0.114 B."
        yield "Replace frame t by (gray(t) - gray(t + 1) + 1) / 2 in all channels; repeat the last difference."
    normalization = normalization_of(spec.stats)
    if normalization is None:
        yield "Subtract the mean of all values of the clip, and divide by their standard deviation, at least 1/255."
    else:
        yield f"Subtract the mean {normalization['mean']} and divide by the standard deviation {normalization['std']}."
    yield f"Arrange the axes as {'(B, C, T, H, W)' if takes_clips else '(B, C, H, W)'}."


def _results(folder: Path, report: dict[str, Any], sha256: str) -> Iterator[dict[str, Any]]:
    """Yield the results of a run and of the evaluations of exactly these weights."""
    if report and report["command"] not in _NOT_RESULTS:
        yield _result(report)
    linked = _read(folder / "evaluations.json") or []
    for evaluation in linked:
        other = _read(folder / str(evaluation) / "report.json")
        if other and _weights_hash(other) == sha256 and other["command"] not in _NOT_RESULTS:
            yield _result(other)


def _weights_hash(report: dict[str, Any]) -> str | None:
    weights = report.get("protocol", {}).get("weights") or {}
    return weights.get("sha256")


def _result(report: dict[str, Any]) -> dict[str, Any]:
    protocol = report.get("protocol", {})
    return {
        "command": report["command"],
        "metrics": {name: value for name, value in report["metrics"].items() if _measures(facts_of(name))},
        "data": "/".join(Path(str(protocol.get("data", ""))).parts[-2:]),  # without the folders of this machine
        "records": protocol.get("records"),
    }


def _measures(facts: MetricFacts) -> bool:
    """Return whether a metric measures the network. Those of plugins are not known, and may."""
    return facts.better == HIGHER or facts.title == facts.name


def _read(file: Path) -> Any:
    """Return the content of a JSON file of a run, or {} if it is missing or damaged: a card can do without it."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
