"""Names of evaluations in words, their order on a page, and which of their metrics it shows first."""

import re

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
_MAIN = re.compile(r"(?!.*(?:_train_|_validation_))(?:\w+_)?(?:top1|R@1|R@5|mAP)(?:_(?:un)?centered)?")


def evaluation_title(command: str) -> str:
    """Return the name of an evaluation in words, such as "Linear probe"; that of a plugin is its command."""
    return _TITLES.get(command, command)


def evaluation_order(command: str) -> int:
    """Return a key that sorts evaluations as a page shows them."""
    return _ORDER.index(command) if command in _ORDER else len(_ORDER)


def is_main(command: str, metric: str) -> bool:
    """Return whether the table of results shows a metric; it shows all of an evaluation of a plugin.

    >>> [is_main("linear", name) for name in ("linear_top1", "linear_top5", "linear_train_top1", "linear_top1@0.1")]
    [True, False, False, False]
    """
    return command not in _TITLES or bool(_MAIN.fullmatch(metric))
