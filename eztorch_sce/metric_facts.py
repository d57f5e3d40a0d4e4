"""Facts about metrics, by name: what they are called, which way is good, and whether they are rates."""

import re
from typing import NamedTuple

HIGHER, LOWER = "higher", "lower"

_CLASSIFIERS = {
    "knn": "kNN",
    "linear": "linear",
    "linear_train": "linear, on the train split",
    "linear_validation": "linear, on held-out train records",
    "few_shot": "few-shot",
    "test": "classifier",
}
_TABLE: tuple[tuple[str, str, str | None, bool], ...] = (
    # pattern of the whole name, title in words, better, whether it is a rate
    (rf"({'|'.join(_CLASSIFIERS)})_top(\d+)", "{0} top-{1}", HIGHER, True),
    (r"R@(\d+)", "retrieval R@{0}", HIGHER, True),
    (r"mAP", "retrieval mAP", HIGHER, True),
    (r"svm_mAP", "SVM mAP", HIGHER, True),
    (r"few_shot_ci95", "few-shot top-1, half the width of its interval", None, True),
    (r"linear_lr", "learning rate of the linear classifier", None, False),
    (r"constant_features", "features that are constant", LOWER, False),
    (r"train_accuracy", "accuracy on batches of the training", HIGHER, True),
    (r"unreadable", "records that cannot be read", LOWER, False),
    (r"data_wait", "fraction of the time spent waiting for data", LOWER, True),
    (r"(views|clips)_per_s", "{0} per second", HIGHER, False),
    (r"spread", "spread of the embeddings", HIGHER, True),
    (r"effective_rank", "effective rank of the embeddings", HIGHER, False),
    (r"uniformity", "uniformity of the embeddings", LOWER, False),
    # The next have no good side by themselves: a network that has collapsed has a low loss and aligned views.
    (r"loss", "loss", None, False),
    (r"alignment", "distance between views of a sample", None, False),
    (r"positive_mass", "probability of the positive", None, True),
    (r"target_entropy", "entropy of the targets", None, False),
    (r"target_neighbors", "neighbors in the targets", None, False),
    (r"queue_age", "steps that keys stay in the queue", None, False),
    (r"grad_norm", "norm of the gradients", None, False),
    (r"momentum", "momentum of the momentum encoder", None, False),
    (r"skipped_steps", "skipped steps", LOWER, False),
    (r"host_memory_gib", "memory of the host, in GiB", LOWER, False),
    (r"gpu_memory_gib", "most memory of a GPU, in GiB", LOWER, False),
    (r"lr(_\d+)?", "learning rate", None, False),
    (r"s", "seconds", LOWER, False),
    (r"minutes", "minutes", LOWER, False),
    (r"(train|test)_records", "{0} records", None, False),
    (r"features", "features per record", None, False),
)
_PREFIXES = {"untrained_": "untrained", "pretrained_": "pretrained", "online_": "online"}
_SUFFIXES = {"_centered": "centered", "_uncentered": "not centered"}


class MetricFacts(NamedTuple):
    """What a reader of a number has to know.

    Attributes:
        name: Name of the metric, as in `report.json`.
        title: The same in words; the name for a metric that is not known here, such as one of a plugin.
        better: "higher" or "lower", or None if neither is better by itself or the metric is not known.
        is_rate: Whether it is a fraction of 1.
    """

    name: str
    title: str
    better: str | None
    is_rate: bool


def facts_of(name: str) -> MetricFacts:
    """Return the facts about a metric.

    >>> facts_of("knn_top1_centered")
    MetricFacts(name='knn_top1_centered', title='kNN top-1, centered', better='higher', is_rate=True)
    >>> facts_of("untrained_R@1").title, facts_of("linear_top1@0.3").title, facts_of("data_wait").better
    ('untrained retrieval R@1', 'linear top-1, lr 0.3', 'lower')
    >>> facts_of("my_metric")
    MetricFacts(name='my_metric', title='my_metric', better=None, is_rate=False)
    """
    rest, _, rate = name.partition("@") if not re.match(r"(.*_)?R@", name) else (name, "", "")
    before = [(prefix, words) for prefix, words in _PREFIXES.items() if rest.startswith(prefix)]
    for prefix, _ in before:
        rest = rest.removeprefix(prefix)
    after = [(suffix, words) for suffix, words in _SUFFIXES.items() if rest.endswith(suffix)]
    for suffix, _ in after:
        rest = rest.removesuffix(suffix)
    for pattern, title, better, is_rate in _TABLE:
        if match := re.fullmatch(pattern, rest):
            words = title.format(*(_CLASSIFIERS.get(part, part) for part in match.groups(default="")))
            endings = [words for _, words in after] + ([f"lr {rate}"] if rate else [])
            text = ", ".join([" ".join([*(words for _, words in before), words]), *endings])
            return MetricFacts(name, text, better, is_rate)
    return MetricFacts(name, name, None, False)
