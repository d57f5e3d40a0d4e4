"""What a study concludes, in words, and the settings that it recommends."""

import itertools
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eztorch_sce.errors import counted
from eztorch_sce.studies.paired import MIN_RECORDS, Comparison, Difference
from eztorch_sce.studies.plan import MIN_STEPS

TITLES = {"knn_top1": "kNN", "linear_top1": "linear", "R@1": "R@1", "mAP": "mAP", "test_top1": "fine-tuned"}
"""Metrics of a study by name, as its tables call them. All are rates, and higher is better."""

COMPARED = ("knn_top1", "linear_top1", "mAP")
"""Metrics that conclusions rest on."""

LONGER = 4
"""How many times longer the recommended training is than that of the study, at least."""


@dataclass(frozen=True)
class Evidence:
    """What a conclusion rests on.

    Attributes:
        kind: "video" or "image".
        sets: Sets of views that were pretrained with, those that matter most first.
        untrained: Name of the untrained network with the input of each set.
        comparisons: Paired comparisons of networks.
        above_chance: Comparison of each network with guessing.
        num_test: Number of test records.
        num_groups: Number of groups of test records that are drawn as a whole; `num_test` without groups.
        epochs: Epochs that each set was trained for.
        steps: Optimizer steps that each set was trained for.
        step_s: Seconds of a step with each set.
    """

    kind: str
    sets: Sequence[str]
    untrained: Mapping[str, str]
    comparisons: Sequence[Comparison]
    above_chance: Sequence[Comparison]
    num_test: int
    num_groups: int
    epochs: Mapping[str, int]
    steps: Mapping[str, int]
    step_s: Mapping[str, float]

    def between(self, first: str, second: str) -> Comparison | None:
        """Return the comparison of two networks, if they were compared in this order."""
        return next((each for each in self.comparisons if (each.first, each.second) == (first, second)), None)

    def verdict(self, first: str, second: str) -> str:
        """Return whether the first network is "better", "worse", "mixed" or "unknown" beside the second."""
        if (found := self.between(first, second)) is not None:
            return found.verdict
        opposite = self.between(second, first)
        return "unknown" if opposite is None else {"better": "worse", "worse": "better"}.get(
            opposite.verdict, opposite.verdict
        )  # fmt: skip

    @property
    def records(self) -> str:
        """The test records, counted in words."""
        groups = f" in {self.num_groups} groups" if self.num_groups != self.num_test else ""
        return f"{counted(self.num_test, f'test {self.kind}')}{groups}"


@dataclass
class Conclusion:
    """What a study says.

    Attributes:
        verdict: "helps", "unknown", "chance", "few", "short" or "unlabeled".
        headline: The answer, in one sentence.
        sentences: What supports it, and what cannot be concluded.
        recommended: The set of views that the recommended command uses, or None.
        is_supported: Whether the evidence supports this set, rather than its cost.
    """

    verdict: str
    headline: str
    sentences: list[str] = field(default_factory=list)
    recommended: str | None = None
    is_supported: bool = False


def conclude(evidence: Evidence) -> Conclusion:
    """Return the conclusion of a study of labeled records."""
    if evidence.num_groups < MIN_RECORDS:
        return _too_few(evidence)
    if not any(each.verdict in ("better", "mixed") for each in evidence.above_chance):
        return _at_chance(evidence)
    helping = [name for name in evidence.sets if evidence.verdict(name, evidence.untrained[name]) == "better"]
    helping = [name for name in helping if not _is_beaten_untrained(name, evidence)]
    best = [name for name in helping if not any(_beats(other, name, evidence) for other in evidence.sets)]
    sentences = [*_comparisons(evidence), *_limits(evidence)]
    if not best and max(evidence.steps.values()) < MIN_STEPS:
        return _too_short(evidence, sentences)
    if not best:
        most = max((each.high for each in _gains(evidence)), default=0.0)
        headline = f"No pretraining could be shown to be better than no training, on {evidence.records}."
        sentences.append(
            f"Gains of more than {most:.2f} are ruled out for a training of this length."
            if most < 0.5 else "The intervals are too wide to rule out a gain."
        )  # fmt: skip
        sentences.append("The study could not tell which views to use: the command takes the cheapest.")
        return Conclusion("unknown", headline, sentences, _cheapest(evidence.sets, evidence))
    name = best[0] if len(best) == 1 else _cheapest(best, evidence)
    headline = f"Pretraining helps on these data: use {name} views."
    if len(best) > 1:
        headline = (
            f"Pretraining helps on these data. {_listed(best)} views cannot be told apart; {name} is the cheapest."
        )
    return Conclusion("helps", headline, sentences, name, is_supported=True)


def _too_few(evidence: Evidence) -> Conclusion:
    headline = f"Nothing can be concluded from {evidence.records}."
    step = 1 / max(1, evidence.num_test)
    sentences = [
        f"One test {evidence.kind} more or less changes an accuracy by {step:.2f}. A study needs at least "
        f"{MIN_RECORDS} independent ones, and several times as many to see small differences.",
        "The study could not tell which views to use: the command takes the cheapest.",
    ]
    return Conclusion("few", headline, sentences, _cheapest(evidence.sets, evidence))


def _too_short(evidence: Evidence, sentences: list[str]) -> Conclusion:
    """Return the conclusion if nothing was trained for long enough to learn."""
    most = max(evidence.steps.values())
    headline = f"The time was too short: {counted(most, 'step')} of training cannot show what it gains."
    advice = (
        f"A pretraining needs at least {MIN_STEPS} steps, and a few hundred to be judged: give the study more minutes."
    )
    unsure = "The study could not tell which views to use: the command takes the cheapest."
    return Conclusion("short", headline, [advice, *sentences, unsure], _cheapest(evidence.sets, evidence))


def _at_chance(evidence: Evidence) -> Conclusion:
    headline = f"No network tells these classes apart better than guessing, trained or not ({evidence.records})."
    sentences = [
        "Either the classes cannot be seen in these files, or the labels are wrong, or far more data are needed. "
        "Look at the files and labels (`eztorch-sce show-views`, `eztorch-sce data doctor`) before training longer.",
        *_limits(evidence),
    ]
    return Conclusion("chance", headline, sentences)


def without_labels(kind: str, problems: Mapping[str, str | None], cheapest: str) -> Conclusion:
    """Return the conclusion of a study of unlabeled records.

    Args:
        kind: "video" or "image".
        problems: What is wrong with the embeddings of each set of views, or None if they are healthy.
        cheapest: The set with the shortest steps.
    """
    sentences = [
        f"{name}: {problem or 'the embeddings are healthy, they did not collapse'}."
        for name, problem in problems.items()
    ]
    sentences += [
        f"With labels of a few hundred {kind}s (one subfolder per class, or a list), the study would measure kNN, "
        "linear and retrieval accuracy of each set of views beside the untrained network. 20 per class would help.",
        "Without labels it cannot tell which views are better: the command takes the cheapest that did not collapse.",
    ]
    return Conclusion("unlabeled", "Without labels, there are no accuracies to compare.", sentences, cheapest)


def _beats(first: str, second: str, evidence: Evidence) -> bool:
    return first != second and evidence.verdict(first, second) == "better"


def _is_beaten_untrained(name: str, evidence: Evidence) -> bool:
    """Return whether an untrained network with another input is better than a pretrained one."""
    others = set(evidence.untrained.values()) - {evidence.untrained[name]}
    return any(evidence.verdict(name, other) == "worse" for other in others)


def _cheapest(names: Sequence[str], evidence: Evidence) -> str:
    return min(names, key=lambda name: evidence.step_s[name])


def _gains(evidence: Evidence) -> list[Difference]:
    found = [evidence.between(name, evidence.untrained[name]) for name in evidence.sets]
    return [each for comparison in found if comparison for each in comparison.differences]


def _comparisons(evidence: Evidence) -> list[str]:
    """Return a sentence per comparison: each set of views with its untrained network, then the sets with each other."""
    pairs = [(name, evidence.untrained[name]) for name in evidence.sets]
    pairs += itertools.combinations(evidence.sets, 2)
    return [_in_words(first, second, evidence) for first, second in pairs if evidence.between(first, second)]


def _in_words(first: str, second: str, evidence: Evidence) -> str:
    """Return the sentence about two networks that were compared."""
    comparison = evidence.between(first, second)
    assert comparison is not None
    one = f"Pretraining with {first} views"
    other = f"pretraining with {second} views" if second in evidence.sets else f"the {second} network"
    if comparison.verdict == "unknown":
        return f"{one} and {other} {_not_apart(comparison, evidence)}"
    if comparison.verdict == "mixed":
        return f"{one} is better than {other} by some metrics and worse by others: {_shown(comparison)}."
    return f"{one} is {comparison.verdict} than {other}: {_shown(comparison)}."


def _not_apart(comparison: Comparison, evidence: Evidence) -> str:
    if any(each.is_sure for each in comparison.differences):
        return f"differ too little, or not in the same direction by all metrics: {_shown(comparison)}."
    needed = [each.needed for each in comparison.differences if each.needed]
    more = f"; about {min(needed)} would be needed" if needed else ""
    return f"cannot be told apart on {evidence.records}{more}: {_shown(comparison)}."


def _shown(comparison: Comparison) -> str:
    """Return the differences, such as "kNN +0.21 [0.10, 0.33]"; those that may be chance come last."""
    sure = [_difference(each) for each in comparison.differences if each.is_sure]
    unsure = [_difference(each) for each in comparison.differences if not each.is_sure]
    if not sure or not unsure:
        return ", ".join(sure or unsure)
    return f"{', '.join(sure)} (not told apart by {', '.join(unsure)})"


def _difference(found: Difference) -> str:
    return f"{TITLES[found.metric]} {found.mean:+.2f} [{found.low:.2f}, {found.high:.2f}]"


def _limits(evidence: Evidence) -> list[str]:
    """Return what the numbers do not cover."""
    sentences = [
        "The 95% intervals cover the choice of test records, for all comparisons together. They do not cover the "
        "seed: each set of views was trained once."
    ]
    if len(set(evidence.epochs.values())) > 1:
        each = ", ".join(f"{name} {count}" for name, count in evidence.epochs.items())
        sentences.append(f"Time ran short, so the sets of views were not trained equally long (epochs: {each}).")
    return sentences


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def longer_command(run_dir: Path, train_list: Path | None, epochs: int, name: str) -> str:
    """Return the command line of a longer training, ready to be pasted into a shell.

    Args:
        run_dir: Pretraining of the study whose settings are repeated.
        train_list: List of all train records, if the study used a subset.
        epochs: Epochs of the longer training.
        name: Name of the new run directory in runs/.
    """
    words = ["eztorch-sce", "pretrain", f"config={run_dir.resolve()}"]
    if train_list is not None:
        words.append(f"data.list={train_list.resolve()}")
    words += [f"trainer.max_epochs={epochs}", f"run.dir=runs/{name}"]
    return shlex.join(words)
