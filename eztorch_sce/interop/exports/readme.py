"""The page of an exported folder: the fields that the Hugging Face Hub reads, and what people want to know."""

import json
from collections.abc import Iterator
from typing import Any

from eztorch_sce.interop.exports.taken import Taken

_TASKS = {  # of the Hub, by whether the inputs are clips and whether there are classes
    (False, False): "image-feature-extraction",
    (False, True): "image-classification",
    (True, True): "video-classification",
}


def readme_of(taken: Taken, library: str, snippet: str) -> str:
    """Return the page.

    Args:
        taken: The network.
        library: Name of the library that loads it.
        snippet: Python code that loads it.
    """
    return "\n".join([*_fields(taken, library), "", *_body(taken, library, snippet)]) + "\n"


def _fields(taken: Taken, library: str) -> Iterator[str]:
    """Yield the lines of YAML before the text. A text in JSON is one in YAML."""
    card, task = taken.card, _task(taken)
    yield "---"
    if license := card.get("license"):
        yield f"license: {json.dumps(license.lower())}"
    yield f"library_name: {library}"
    if task:
        yield f"pipeline_tag: {task}"
    yield "tags:"
    tags = ["eztorch-sce", "self-supervised-learning", "video" if taken.network.backbone.takes_clips else "image"]
    yield from (f"- {tag}" for tag in (*tags, taken.name))
    if results := list(_results(card)):
        yield "model-index:"
        yield f"- name: {json.dumps(taken.name)}"
        yield "  results:"
        for result in results:
            yield "  - task:"
            yield f"      type: {task or 'video-classification'}"
            yield "    dataset:"
            yield f"      name: {json.dumps(result['data'])}"
            yield f"      type: {json.dumps(result['data'])}"
            yield "    metrics:"
            for name, value in result["metrics"].items():
                yield f"    - type: {json.dumps(name)}"
                yield f"      value: {value}"
    yield "---"


def _task(taken: Taken) -> str | None:
    return _TASKS.get((taken.network.backbone.takes_clips, taken.network.head is not None))


def _results(card: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the results with a data set and numbers, as the Hub wants them."""
    for result in card.get("results", []):
        metrics = {name: value for name, value in result["metrics"].items() if value == value}  # not NaN
        if result["data"] and metrics:
            yield result | {"metrics": metrics}


def _body(taken: Taken, library: str, snippet: str) -> Iterator[str]:
    card, backbone = taken.card, taken.network.backbone
    num_parameters = sum(parameter.numel() for parameter in taken.network.parameters())
    what = f"{num_parameters:,} parameters and {backbone.num_features} features"
    yield f"# {taken.name}"
    yield ""
    trained = f"trained with eztorch-sce{_recipe(card)}" if taken.weights.source is None else _origin(taken)
    yield f"A network for {'clips of video' if backbone.takes_clips else 'images'} with {what}, {trained}."
    yield ""
    yield "## Use"
    yield ""
    packages = {"timm": "timm"}.get(library, "torch safetensors numpy")
    yield f"It needs `pip install {packages}`, and is run in this folder:"
    yield ""
    yield f"```python\n{snippet}```"
    yield ""
    outputs = ", ".join(f"`{name}` {shape}" for name, shape in card["outputs"].items())
    yield f"Outputs: {outputs}, with F = {backbone.num_features}."
    yield ""
    yield "## Preprocessing"
    yield ""
    yield from (f"{number}. {step}" for number, step in enumerate(card["preprocessing"]["steps"], start=1))
    if taken.weights.classes:
        yield f"\n## Classes\n\nIn the order of the logits: {', '.join(taken.weights.classes)}."
    yield from _results_table(card)
    yield from _end(card)


def _recipe(card: dict[str, Any]) -> str:
    return f", recipe {card['recipe']}" if card.get("recipe") else ""


def _origin(taken: Taken) -> str:
    source = taken.weights.source or {}
    return f"from a checkpoint of {source.get('title', 'other code')}"


def _results_table(card: dict[str, Any]) -> Iterator[str]:
    rows = [
        f"| {result['command']} | {result['data']} | {name} | {value:.4g} |"
        for result in _results(card)
        for name, value in result["metrics"].items()
    ]
    if rows:
        yield "\n## Results\n\n| evaluation | data | metric | value |\n|---|---|---|---|"
        yield from rows


def _end(card: dict[str, Any]) -> Iterator[str]:
    license = card.get("license")
    yield f"\n## License\n\n{license or 'Not stated: ask the author before you use the weights.'}"
    versions = ", ".join(f"{name} {version}" for name, version in card["exported_with"].items())
    yield f"\nWritten by {versions}. More is in `config.json`, and in the metadata of `model.safetensors`."
