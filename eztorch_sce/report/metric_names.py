"""Names of metrics in words, and which of them a page shows first."""

import re
from typing import NamedTuple

_TITLES = {
    "knn": "k nearest neighbors",
    "linear": "Linear probe",
    "finetune": "Fine-tuning",
    "test": "Fine-tuned classifier",
    "retrieve": "Retrieval",
    "svm": "Support vector machines",
    "few-shot": "Few-shot",
    "pretrain": "During pretraining",
}
_ORDER = list(_TITLES)
_MAIN = re.compile(r"(?:.*_)?top1(?:_(?:un)?centered)?|R@(?:1|5)(?:_uncentered)?|(?:svm_)?mAP(?:_uncentered)?")
_NOT_MAIN = re.compile(r".*(?:train|validation|@\d+\.).*|linear_top1@.*")
_WORDS = (
    (re.compile(r"top(\d+)"), r"top-\1 accuracy"),
    (re.compile(r"R@(\d+)"), r"recall at \1"),
    (re.compile(r"mAP"), "mean average precision"),
)


class MetricName(NamedTuple):
    """A metric in words.

    Attributes:
        label: Words for a row of a table.
        is_main: Whether it belongs to the table of results; the others are shown with the protocol.
    """

    label: str
    is_main: bool


def evaluation_title(command: str) -> str:
    """Return the name of an evaluation in words, such as "Linear probe"; that of a plugin is its command."""
    return _TITLES.get(command, command)


def evaluation_order(command: str) -> int:
    """Return a key that sorts evaluations as a page shows them."""
    return _ORDER.index(command) if command in _ORDER else len(_ORDER)


def metric_name(command: str, metric: str) -> MetricName:
    """Return a metric of a command in words.

    >>> metric_name("knn", "knn_top1_centered")
    MetricName(label='top-1 accuracy, centered features', is_main=True)
    >>> metric_name("retrieve", "R@5_uncentered").label, metric_name("linear", "linear_top1@0.1").is_main
    ('recall at 5, features not centered', False)
    """
    is_own = command in _TITLES
    base, suffix = metric, ""
    for ending, words in (("_uncentered", ", features not centered"), ("_centered", ", centered features")):
        if base.endswith(ending):
            base, suffix = base.removesuffix(ending), words
    for prefix in ("knn_", "linear_", "test_", "few_shot_", "svm_"):
        base = base.removeprefix(prefix)
    if command == "pretrain" and metric.startswith("online_"):
        base = metric.removeprefix("online_").replace("knn_", "kNN, ").replace("linear_", "linear probe, ")
    for pattern, words in _WORDS:
        base = pattern.sub(words, base)
    is_main = bool(_MAIN.fullmatch(metric)) and not _NOT_MAIN.fullmatch(metric)
    return MetricName((base + suffix).replace("_", " "), is_main or not is_own)
