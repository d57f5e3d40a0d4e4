"""Whether a training is healthy, from the numbers that it logs: no labels are needed.

Each check compares one number with one threshold, and says both. tests/evaluation/test_health.py trains healthy and
broken networks for each of them.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from eztorch_sce.errors import counted

COLLAPSED_SPREAD = 0.1  # healthy embeddings stay above 0.5: the whole sphere has 1, one point 0
SHRINKING_SPREAD = 0.4
COLLAPSED_RANK = 2.0  # fewer dimensions cannot tell more than a few groups of records apart
FEWEST_OF_RANK = 8  # embeddings of a batch, N of which use at most N - 1 dimensions
COLLAPSED_UNIFORMITY = -0.5  # 0 for one point; healthy trainings lie between -4 and -1.5
FEW_DIMENSIONS = 4.0
LOST_RANK = 0.25  # of the rank at the start; training narrows healthy embeddings to a half at most
MAX_RISE = 0.5  # of what the loss has gained: noise and a filling queue raise it by a tenth
EXPLODED_NORM = 20.0  # times its median so far; single batches reach 5
MUCH_WAITING = 0.4  # of the time; a loader that keeps up waits 1 to 10%, one without workers up to 30%
MOSTLY_WAITING = 0.7
SLOWED = 0.5  # of the throughput of the first half
LEAST_GAIN = 0.02  # of the loss; noise between batches is about 1 %
MEMORIZED = 0.95  # accuracy on the train split
GAP = 0.25  # between train and test accuracy; random crops and dropout make the first the lower one
FALLEN_PROBE = 0.05  # of the accuracy at its best epoch
_MANY_STEPS = 200  # after which a loss that has not moved never will
_EARLY = 5  # logged rows before which nothing is judged but what cannot be undone


@dataclass(frozen=True)
class Finding:
    """A judgment about a training.

    Attributes:
        kind: What was judged, such as "collapse".
        level: "bad", "warn" or "good".
        title: The judgment in a few words.
        text: The number, the threshold and its reason.
        cure: What to do: a setting or a command; empty if there is nothing to do.
    """

    kind: str
    level: str
    title: str
    text: str
    cure: str = ""


@dataclass(frozen=True)
class Training:
    """What is known of a training.

    Attributes:
        command: Such as "pretrain".
        curves: The values of each logged number in order, finite or not.
        settings: Its settings by their path, such as "optimizer.lr".
        state: "finished", "running" or "interrupted".
        progress: Fraction of the training that is done; None if not known.
        num_steps: Optimizer steps so far.
        tested: Metrics of its report, such as "test_top1".
    """

    command: str
    curves: Mapping[str, Float64[NDArray[np.float64], "..."]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    state: str = "finished"
    progress: float | None = None
    num_steps: int = 0
    tested: Mapping[str, float] = field(default_factory=dict)

    def values(self, name: str) -> NDArray[np.float64]:
        """Return the finite values of a logged number, none if it was not logged."""
        values = self.curves.get(name, np.zeros(0))
        return values[np.isfinite(values)]

    def setting(self, name: str) -> str:
        """Return a setting as it is written on the command line, without its value if that is not known."""
        value = self.settings.get(name)
        return name if value is None else f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"


def judge(training: Training) -> list[Finding]:
    """Return the findings about a training, the most serious first; a single good one if there is no problem."""
    if not any(len(values) for values in training.curves.values()):
        return [Finding("none", "warn", "Nothing logged", "the run has not logged any metrics yet")]
    findings = [finding for check in _CHECKS if (finding := check(training)) is not None]
    if any(finding.kind == "divergence" for finding in findings):
        # Resuming would diverge again, and a higher learning rate, which a loss that stays calls for, would too.
        findings = [finding for finding in findings if finding.kind not in ("interruption", "no progress")]
    if not any(finding.kind != "interruption" for finding in findings):
        findings.append(_nothing_wrong(training))
    return sorted(findings, key=lambda finding: ("bad", "warn", "good").index(finding.level))


def in_words(finding: Finding) -> str:
    """Return a finding as one sentence or two for a terminal."""
    cure = f". {finding.cure[0].upper()}{finding.cure[1:]}" if finding.cure else ""
    return f"{finding.title[0].lower()}{finding.title[1:]}: {finding.text}{cure}"


def verdict(metrics: Mapping[str, float], num_embeddings: int | None = None) -> str | None:
    """Return in words that embeddings have collapsed, or None if they are healthy.

    Args:
        metrics: Values of `diagnostics.embedding_diagnostics`, possibly among others. Missing values count as healthy.
        num_embeddings: How many they were computed from; None if there are enough to judge the rank.
    """
    finding = collapse(metrics.get("spread", 1.0), metrics.get("effective_rank", math.inf), num_embeddings)
    return None if finding is None else in_words(finding)


def collapse(spread: float, rank: float, num_embeddings: int | None = None) -> Finding | None:
    """Return the finding that embeddings have collapsed, or None.

    Args:
        spread, rank: `spread` and `effective_rank` of `evaluation.diagnostics.embedding_diagnostics`.
        num_embeddings: How many they were computed from; None if there are enough to judge the rank.
    """
    if math.isnan(spread):
        return Finding("divergence", "bad", "Diverged", "the embeddings contain NaN", _CALMER)
    if spread < COLLAPSED_SPREAD:
        text = f"all embeddings nearly coincide: spread {spread:.3f}, below {COLLAPSED_SPREAD:g}; 1 is healthy"
        return Finding("collapse", "bad", "Collapsed", text, _AGAINST_COLLAPSE)
    if rank < COLLAPSED_RANK and (num_embeddings is None or num_embeddings >= FEWEST_OF_RANK):
        text = (
            f"the embeddings use {rank:.1f} dimensions, below {COLLAPSED_RANK:g}: they separate only a few groups of "
            "records"
        )
        return Finding("collapse", "bad", "Collapsing", text, _AGAINST_CUES)
    return None


_AGAINST_COLLAPSE = "lower optimizer.lr, keep a predictor or negatives, or raise the temperature of the loss"
_AGAINST_CUES = (
    "check the views (eztorch-sce show-views): they may be too similar, or share a shortcut; then check the settings "
    "of the loss and optimizer.lr"
)
_CALMER = "lower optimizer.lr, raise schedule.warmup_epochs, or set trainer.precision=32-true"


def _ends(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the medians of the first and the last tenth, of at least 3 values, up to a third of all."""
    count = max(1, min(max(3, len(values) // 10), len(values) // 3))
    return float(np.median(values[:count])), float(np.median(values[-count:]))


def _collapse(training: Training) -> Finding | None:
    spread, rank = training.values("spread"), training.values("effective_rank")
    if not len(spread) or not len(rank):
        return None
    (_, last_spread), (first_rank, last_rank) = _ends(spread), _ends(rank)
    batch_size = training.settings.get("data.batch_size")
    if (finding := collapse(last_spread, last_rank, batch_size)) is not None:
        return finding
    if len(spread) < _EARLY or (batch_size is not None and batch_size < FEWEST_OF_RANK):
        return None
    uniformity = training.values("uniformity")
    is_narrow = last_rank < FEW_DIMENSIONS or last_spread < SHRINKING_SPREAD
    if is_narrow and len(uniformity) and _ends(uniformity)[1] > COLLAPSED_UNIFORMITY:
        text = (
            f"uniformity {_ends(uniformity)[1]:.2f}, above {COLLAPSED_UNIFORMITY:g} (spread {last_spread:.2f}, "
            f"{last_rank:.1f} dimensions): most pairs of embeddings nearly coincide; healthy trainings stay below -1.5"
        )
        return Finding("collapse", "bad", "Collapsed", text, _AGAINST_COLLAPSE)
    if last_spread < SHRINKING_SPREAD:
        text = f"spread {last_spread:.2f}, below {SHRINKING_SPREAD:g}: the embeddings contract to a point; 1 is healthy"
        return Finding("collapse", "warn", "Close to collapse", text, _AGAINST_COLLAPSE)
    if last_rank < LOST_RANK * first_rank:
        text = (
            f"the embeddings use {last_rank:.1f} dimensions, down from {first_rank:.1f}; healthy trainings rarely fall "
            f"below {LOST_RANK:.0%} of their start"
        )
        return Finding("collapse", "warn", "Few dimensions", text, _AGAINST_CUES)
    return None


def _divergence(training: Training) -> Finding | None:
    loss, calmer = training.curves.get("loss", np.zeros(0)), _calmer(training)
    if not np.isfinite(loss).all():
        count = int((~np.isfinite(loss)).sum())
        text = f"the loss is NaN or infinite in {count} of {counted(len(loss), 'logged step')}"
        return Finding("divergence", "bad", "Diverged", text, calmer)
    if len(loss) < _EARLY:
        return None
    smooth = _smooth(loss)
    settled = len(smooth) // 10  # the first keys of a queue are easy: the loss rises while it fills
    first, last, least = float(smooth[: settled + 1].max()), float(smooth[-1]), float(smooth[settled:].min())
    gained = max(first - least, LEAST_GAIN * abs(first))
    noise = float(np.median(np.abs(np.diff(loss))))
    if last - least > max(MAX_RISE * gained, 2 * LEAST_GAIN * abs(least), 2 * noise):
        text = (
            f"the loss rose from its minimum of {least:.3g} to {last:.3g}: it lost more than half of its progress, and "
            f"the rise exceeds the noise between batches, {noise:.2g}"
        )
        return Finding("divergence", "bad", "Loss rises", text, calmer)
    norms = training.values("grad_norm")
    if len(norms) >= _EARLY:
        usual, now = float(np.median(norms)), float(np.median(norms[-3:]))
        if now > EXPLODED_NORM * usual:
            text = (
                f"the gradient norm is {now:.3g}, {now / usual:.0f} times its median; single batches of "
                f"healthy trainings reach 5 times, and the threshold is {EXPLODED_NORM:g}"
            )
            return Finding("divergence", "bad", "Gradients explode", text, calmer)
    return None


def _calmer(training: Training) -> str:
    return (
        f"lower {training.setting('optimizer.lr')}, raise {training.setting('schedule.warmup_epochs')}, or set "
        "trainer.precision=32-true"
    )


def _smooth(values: NDArray[np.float64], width: int = 0) -> NDArray[np.float64]:
    """Return the running median of `width` values, or of a twentieth of them, 3 at least."""
    width = min(len(values), max(3, width or len(values) // 20))
    return np.median(np.lib.stride_tricks.sliding_window_view(values, width), axis=1)


def _no_progress(training: Training) -> Finding | None:
    loss = training.values("loss")
    if len(loss) < 2 * _EARLY or (training.progress is not None and training.progress < 0.2):
        return None
    first, last, error = _fall(loss)
    if first - last >= max(LEAST_GAIN * abs(first), 1.5 * error):
        return None
    text = (
        f"the loss went from {first:.4g} to {last:.4g}; a decrease of less than {LEAST_GAIN:.0%} or {1.5 * error:.2g} "
        f"cannot be told from the noise between batches{_of_guessing(training, last)}"
    )
    cure = f"raise {training.setting('optimizer.lr')}, train for more epochs, or use a smaller batch for more steps"
    level = "bad" if training.num_steps >= _MANY_STEPS else "warn"
    return Finding("no progress", level, "Not learning", text, cure)


def _fall(loss: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the mean loss of the first or the second third, the higher of both, that of the last, and their error.

    Many losses rise before they fall: the first keys of a queue are easy to tell apart.
    """
    first, second, last = np.array_split(loss, 3)
    between_batches = float(np.std(np.diff(loss))) / math.sqrt(2)
    return float(max(first.mean(), second.mean())), float(last.mean()), between_batches * math.sqrt(2 / len(last))


def _of_guessing(training: Training, loss: float) -> str:
    """Return a remark if a contrastive loss is that of embeddings that say nothing: the logarithm of the keys."""
    keys = training.settings.get("method.queue_size")
    if not isinstance(keys, int) or keys < 2 or abs(loss / math.log(keys) - 1) > LEAST_GAIN:
        return ""
    uniform = f"log({keys}) = {math.log(keys):.2f}"
    return f". It is close to {uniform}, the loss of a network to which all {keys} keys look alike"


def _starvation(training: Training) -> Finding | None:
    waits = training.values("data_wait")
    if len(waits) < 3:
        return None
    wait = float(np.median(waits[len(waits) // 2 :]))
    if wait >= MUCH_WAITING:
        text = (
            f"the training spends {wait:.0%} of its time waiting for data; above {MUCH_WAITING:.0%}, faster loading "
            "helps more than anything else"
        )
        cure = (
            f"raise {training.setting('data.num_workers')}, measure with eztorch-sce data bench FOLDER, and re-encode "
            "small copies with eztorch-sce data prepare FOLDER OUT"
        )
        return Finding("starvation", "bad" if wait >= MOSTLY_WAITING else "warn", "Waits for data", text, cure)
    return None


def _slowing(training: Training) -> Finding | None:
    rates = training.values("views_per_s")
    if len(rates) < 2 * _EARLY:
        return None
    before, now = float(np.median(rates[: len(rates) // 2])), float(np.median(rates[-max(3, len(rates) // 5) :]))
    if now >= SLOWED * before:
        return None
    text = f"{now:.3g} views/s, down from {before:.3g}: less than half"
    cure = "look for other processes on this machine, a full disk cache, a network file system or a hot GPU"
    return Finding("slowing", "warn", "Slows down", text, cure)


def _overfitting(training: Training) -> Finding | None:
    accuracy, test = training.values("train_accuracy"), training.tested.get("test_top1")
    if len(accuracy) and test is not None:
        _, train = _ends(accuracy)
        if train >= MEMORIZED and train - test > GAP:
            text = (
                f"accuracy {train:.2f} on the train split and {test:.2f} on the test split: a difference above "
                f"{GAP:g} means that the network memorizes the train split"
            )
            cure = (
                f"fewer epochs ({training.setting('trainer.max_epochs')}), {training.setting('dropout')} higher, "
                "mixup=0.2, a lower layer_decay, or stronger views"
            )
            return Finding("overfitting", "warn", "Overfits", text, cure)
    return _fallen_probe(training)


def _fallen_probe(training: Training) -> Finding | None:
    probe = training.values("online_linear_top1")
    if len(probe) < _EARLY:
        return None
    best, last = float(_smooth(probe).max()), float(np.median(probe[-3:]))
    if best - last <= FALLEN_PROBE:
        return None
    text = f"the online linear probe fell from its best, {best:.3f}, to {last:.3f}, by more than {FALLEN_PROBE:g}"
    cure = "save and compare intermediate backbones (run.save_every_n_epochs=...); check the views for a shortcut"
    return Finding("overfitting", "warn", "The probe falls", text, cure)


def _interruption(training: Training) -> Finding | None:
    if training.state != "interrupted":
        return None
    done = "" if training.progress is None else f" after {training.progress:.0%}"
    text = f"the run stopped{done} without a report: its process no longer runs"
    cure = "run its command again, with run.dir set to its directory: it goes on from its last checkpoint"
    return Finding("interruption", "warn", "Interrupted", text, cure)


def _nothing_wrong(training: Training) -> Finding:
    loss = training.values("loss")
    if len(loss) < _EARLY:
        return Finding(
            "none", "warn", "Too early to say", f"{counted(len(loss), 'logged step')} of the {_EARLY} needed"
        )
    first, last, _ = _fall(loss)
    facts = [f"the loss fell from {first:.3g} to {last:.3g}"]
    for name, words in (("spread", "spread {:.2f} (1 is healthy)"), ("effective_rank", "{:.1f} dimensions in use")):
        if len(values := training.values(name)):
            facts.append(words.format(_ends(values)[1]))
    if len(waits := training.values("data_wait")):
        facts.append(f"{float(np.median(waits)):.0%} of the time spent waiting for data")
    return Finding("none", "good", "No problem found", ", ".join(facts))


_CHECKS: tuple[Callable[[Training], Finding | None], ...] = (
    _divergence,
    _collapse,
    _no_progress,
    _starvation,
    _slowing,
    _overfitting,
    _interruption,
)
