"""Linear evaluation: linear classifiers on a frozen backbone, several learning rates in one pass."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from eztorch_sce import signals
from eztorch_sce.config.choice_types import ViewsChoice
from eztorch_sce.config.parts import batch_conflicts
from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.sources.manifest import Manifest
from eztorch_sce.evaluation.banks import check_banks
from eztorch_sce.evaluation.base import EvaluationConfig, Scores
from eztorch_sce.evaluation.classifier import features_and_probabilities
from eztorch_sce.evaluation.features import RecordViews
from eztorch_sce.evaluation.memory import on_device, take
from eztorch_sce.evaluation.metrics import classification_scores, scores_of_hits, top_hits
from eztorch_sce.evaluation.search import CPU
from eztorch_sce.evaluation.selection import groups_of, validation_rows
from eztorch_sce.machine import Machine, this_machine
from eztorch_sce.models.backbones.base import Backbone
from eztorch_sce.models.classifier import linear_head
from eztorch_sce.optim.base import OptimizerConfig
from eztorch_sce.optim.groups import effective_lr, with_rates
from eztorch_sce.optim.schedules import ScheduleConfig
from eztorch_sce.optim.sgd import SGDConfig
from eztorch_sce.precision import exact_float32
from eztorch_sce.progress import track
from eztorch_sce.registry import register
from eztorch_sce.seeding import generator_for
from eztorch_sce.settings import choice, setting, show
from eztorch_sce.training.config import TrainerConfig
from eztorch_sce.transfers import to_device
from eztorch_sce.types import FeatureBank, StoredRows

_BLOCK = 16384  # rows scored per batch
_STORED_BLOCK = 4096  # rows read from files into float64 at once


def probe_sgd() -> SGDConfig:
    """Return the default optimizer of a linear probe."""
    return SGDConfig(lr=0.3, weight_decay=1e-4)


@register("evaluation", "linear")
@dataclass
class LinearConfig(EvaluationConfig):
    """Train linear classifiers on a frozen backbone.

    Without `views`, the features are extracted once, from the clips and crops of `test`. With one view
    (`views=linear_video`), they are computed in every epoch from random views, as in the published protocols. In both
    cases, `data.batch_size` is the number of samples per optimizer step.
    """

    data: DataConfig = field(default_factory=lambda: DataConfig(batch_size=256))
    views: ViewsChoice = choice(
        "views", [], help="Random view for each epoch; an empty list extracts the features once."
    )
    lrs: list[float] = setting(
        [], above=0, help="Further learning rates to train in the same pass as optimizer.lr, with one classifier each."
    )
    select_on: str = setting(
        "validation",
        choices=["validation", "test"],
        help="Records on which to choose among optimizer.lr and lrs: validation holds out part of the train split "
        "and scores the test split once; test reports the best test accuracy, as some published sweeps do.",
    )
    validation_fraction: float = setting(
        0.2, above=0, below=1, help="Fraction of each class's train records held out to choose the learning rate."
    )
    optimizer: SGDConfig = field(default_factory=probe_sgd)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    trainer: TrainerConfig = field(default_factory=lambda: TrainerConfig(max_epochs=100))
    standardize: bool = setting(
        True, help="Standardize each feature by its mean and standard deviation on the train split; unused with views."
    )

    def machine(self) -> Machine | None:
        """Return this machine if the classifiers train on views."""
        return this_machine() if self.views else None

    def conflicts(self, prefix: str) -> list[str]:
        """Return one message per conflict between the views, the features and the batch."""
        messages = super().conflicts(prefix)
        if len(self.views) > 1:
            messages.append(
                f"views has {len(self.views)} views: the classifiers train on one view; set one, or views=null to "
                "extract the features once"
            )
        if self.views and self.features is not None:
            messages.append(
                f"features={self.features} were extracted once, but views computes them in every epoch: remove one of "
                "them"
            )
        messages += self._unused_hardware()
        if self.views:
            messages += batch_conflicts(self.data, self.trainer)
        elif self.features is not None and self.data.samples_per_step < 1:
            messages.append(f"data.batch_size={self.data.batch_size} must be at least 1")
        return messages

    def _unused_hardware(self) -> list[str]:
        """Return one message per setting of the hardware that only the other kind of training has."""
        if self.views:
            unused = {"accelerator": self.accelerator, "precision": self.precision}
            messages = [
                f"{name}={value} has no effect on a training on views: use trainer.{name}={value}"
                for name, value in unused.items()
                if value not in ("auto", None)
            ]
            if self.trainer.checkpointing:
                messages.append("trainer.checkpointing=true has no effect on a frozen backbone: remove it")
            return messages
        default = TrainerConfig()
        cures = {name: f"use {name}={getattr(self.trainer, name)}" for name in ("accelerator", "precision")}
        return [
            f"trainer.{name}={show(value)} has no effect without views: {cures.get(name, 'remove it')}"
            for name in (item.name for item in fields(default) if item.name != "max_epochs")
            if (value := getattr(self.trainer, name)) != getattr(default, name)
        ]

    def probe(self) -> "Probe":
        """Return the settings of the training, with each learning rate listed once."""
        return Probe(
            lrs=list(dict.fromkeys([self.optimizer.lr, *self.lrs])),
            optimizer=self.optimizer,
            schedule=self.schedule,
            max_epochs=self.trainer.epochs,
            batch_size=self.data.samples_per_step,
            standardize=self.standardize,
            seed=self.seed,
            select_on=self.select_on,
            validation_fraction=self.validation_fraction,
        )

    def held_out(self, train: Manifest) -> Bool[Tensor, " N"]:
        """Return which records of the train split choose the learning rate; see `validation_rows`."""
        labels = torch.from_numpy(train.records.labels).long()
        return validation_rows(labels, train.classes, self.validation_fraction, self.seed, train.records.groups)

    def check_records(self, train: Tensor, test: Tensor, classes: Sequence[str]) -> None:
        """Raise ConfigError if no train record can be held out to choose a learning rate."""
        if self.probe().selects_on_validation:
            validation_rows(train, classes, self.validation_fraction, self.seed)

    def evaluate(self, train: FeatureBank, test: FeatureBank, device: torch.device) -> Scores:
        """Return `linear_train_top1` and the metrics of `linear_probe`."""
        return linear_probe(train, test, self.probe(), device)


class LinearHeads(nn.Module):
    """Linear classifiers side by side on the same features, one per learning rate.

    Args:
        num_features: Width of the features (F).
        num_classes: Number of classes (C).
        lrs: Learning rate of each head, for a batch of 256.
        generator: Draws the initial weights, which all heads share; None for torch's global generator.
    """

    def __init__(
        self, num_features: int, num_classes: int, lrs: Sequence[float], generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.lrs = list(lrs)
        first = linear_head(num_features, num_classes, generator)
        self.heads = nn.ModuleList(nn.Linear(num_features, num_classes) for _ in self.lrs)
        for head in self.heads:
            head.load_state_dict(first.state_dict())

    def forward(self, features: Float[Tensor, "B F"]) -> Float[Tensor, "heads B C"]:
        """Return logits (heads, B, C) of features (B, F)."""
        weights, biases = (torch.cat(parts) for parts in zip(*(head.parameters() for head in self.heads), strict=True))
        logits = F.linear(features, weights, biases)  # (B, heads * C), in one product
        return logits.view(len(features), len(self.heads), -1).transpose(0, 1)

    def only(self, lr: float) -> "LinearHeads":
        """Return a copy with the head of one learning rate alone."""
        head = self.heads[self.lrs.index(lr)]
        num_classes, num_features = next(head.parameters()).shape
        alone = LinearHeads(num_features, num_classes, [lr])
        alone.heads[0].load_state_dict(head.state_dict())
        return alone

    def losses(self, features: Float[Tensor, "B F"], labels: Int64[Tensor, " B"]) -> Float[Tensor, " heads"]:
        """Return the cross entropy of each head, (heads,), on features (B, F) with labels (B,)."""
        return torch.stack([F.cross_entropy(logits, labels) for logits in self(features)])

    @torch.no_grad()
    def undo_standardization(self, mean: Float[Tensor, " F"], deviation: Float[Tensor, " F"]) -> None:
        """Turn heads trained on (x - mean) / deviation into the equivalent heads on x."""
        for head in self.heads:
            weight, bias = head.parameters()
            weight.div_(deviation)
            bias.sub_(weight @ mean)

    def num_unused_features(self) -> int:
        """Return the number of features whose weights are all zero."""
        weights = torch.cat([next(head.parameters()).detach() for head in self.heads])  # (heads * C, F)
        return int((weights.count_nonzero(dim=0) == 0).sum())

    def rates(self, batch_size: int) -> list[tuple[Iterable[nn.Parameter], float]]:
        """Return the parameters of each head and its learning rate for a global batch of `batch_size` samples."""
        return [
            (head.parameters(), effective_lr(lr, batch_size)) for head, lr in zip(self.heads, self.lrs, strict=True)
        ]


@dataclass
class Probe:
    """Settings for training linear classifiers on extracted features.

    Attributes:
        lrs: Learning rate of each classifier, for a batch of 256.
        optimizer: A registered optimizer config; its own `lr` is not used.
        schedule: Schedule of the learning rates.
        max_epochs: Passes over the features.
        batch_size: Rows per step.
        standardize: Standardize each feature by its mean and standard deviation over the train features.
        seed: Seed of the initial weights, of the order of the rows, and of the records that choose a learning rate.
        select_on: "validation" or "test": the records that choose a learning rate if there are several.
        validation_fraction: Fraction of the train records that are held out to choose.
    """

    lrs: list[float] = field(default_factory=lambda: [probe_sgd().lr])
    optimizer: OptimizerConfig = field(default_factory=probe_sgd)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    max_epochs: int = 100
    batch_size: int = 256
    standardize: bool = True
    seed: int = 0
    select_on: str = "validation"
    validation_fraction: float = 0.2

    @property
    def selects_on_validation(self) -> bool:
        """Whether there are several learning rates, and held-out train records choose among them."""
        return len(self.lrs) > 1 and self.select_on == "validation"


def linear_probe(train: FeatureBank, test: FeatureBank, probe: Probe, device: torch.device = CPU) -> Scores:
    """Train linear classifiers on the train features, and return `linear_top1` and `linear_top5` on the test features.

    `linear_train_top1` is the accuracy of the same head on the train features, and `constant_features` the number of
    features that it leaves out, if there are any.

    If there are several learning rates, classifiers trained without a held-out fraction of the train records choose the
    one with the best accuracy on it. A classifier is then trained with it on all train records, exactly as if it were
    the only one, and only this one is tested; the metrics of `choice_metrics` are added. With `select_on="test"`, the
    metrics are those of `sweep_metrics`.

    Raises:
        ConfigError: If the features cannot be used; see `check_banks`.
    """
    check_banks(train, test)
    num_classes = int(max(train.labels.max(), test.labels.max())) + 1
    groups = groups_of(train) if probe.selects_on_validation else None
    train = replace(train, features=on_device(train.features, device))
    choice: dict[str, float] = {}
    if probe.selects_on_validation:
        order = train.in_order()  # which the draw depends on
        groups = None if groups is None else groups[order.numpy()]
        drawn = validation_rows(train.labels[order], train.classes, probe.validation_fraction, probe.seed, groups)
        held_out = torch.zeros_like(drawn)
        held_out[order] = drawn
        choice = _choose_on_validation(train, held_out, num_classes, probe, device)
        probe = replace(probe, lrs=[choice["linear_lr"]])
    heads = train_heads(train, num_classes, probe, device)
    scores = sweep_scores(probe.lrs, _scores_of_heads(heads, test, device))
    chosen = probe.lrs.index(scores.metrics.get("linear_lr", probe.lrs[0]))
    on_train = _scores_of_heads(heads, train, device)[chosen].metrics["linear_top1"]
    metrics = scores.metrics | {"linear_train_top1": on_train} | choice
    if num_constant := heads.num_unused_features():
        metrics["constant_features"] = float(num_constant)
    return replace(scores, metrics=metrics)


def _choose_on_validation(
    train: FeatureBank, held_out: Bool[Tensor, " N"], num_classes: int, probe: Probe, device: torch.device
) -> dict[str, float]:
    """Return the metrics of `choice_metrics`, from classifiers trained without the held-out records."""
    order = train.in_order()
    heads = train_heads(train, num_classes, probe, device, order[~held_out[order]])
    return choice_metrics(probe.lrs, _scores_of_heads(heads, train, device, held_out.nonzero().flatten()))


@exact_float32()
def train_heads(
    train: FeatureBank,
    num_classes: int,
    probe: Probe,
    device: torch.device = CPU,
    rows: Int64[Tensor, " rows"] | None = None,
) -> LinearHeads:
    """Train linear classifiers and return them, rescaled to take features that are not standardized.

    The features may be larger than memory: a device that has no room for them gets one batch at a
    time. The host waits for the device before the first step and at no other.

    Args:
        train: Features of the train split, which are standardized by its mean and deviation.
        num_classes: Number of classes.
        probe: Settings of the training.
        device: The device to compute on.
        rows: Records to train on, in the order of the data; None for all.
    """
    features, labels = on_device(train.features, device), to_device(train.labels, device)
    num_features = features.shape[1]
    rows = train.in_order() if rows is None else rows
    num_records = len(rows)
    mean, deviation = torch.zeros(num_features, device=device), torch.ones(num_features, device=device)
    if probe.standardize:
        mean, deviation = (values.to(device) for values in standardization(features))
    generator = generator_for(probe.seed, 0, 0, 0, "linear")
    heads = LinearHeads(num_features, num_classes, probe.lrs, generator).to(device)
    batch_size = min(probe.batch_size, num_records)
    optimizer = with_rates(probe.optimizer, heads.rates(batch_size))
    num_steps = probe.max_epochs * -(-num_records // batch_size)
    scheduler = LambdaLR(optimizer, lambda step: probe.schedule.factor(step, num_steps, probe.max_epochs))
    for _ in track(range(probe.max_epochs), probe.max_epochs, "linear classifiers, epochs"):
        order = rows[torch.randperm(num_records, generator=generator)]
        batches = zip(order.split(batch_size), to_device(order, device).split(batch_size), strict=True)
        for drawn, drawn_on_device in batches:
            signals.poll()
            x = take(features, drawn, drawn_on_device, device)  # (B, F)
            optimizer.zero_grad()
            heads.losses((x - mean) / deviation, labels[drawn_on_device]).sum().backward()
            optimizer.step()
            scheduler.step()
    heads.undo_standardization(mean, deviation)
    return heads


def standardization(features: Float[Tensor, "N F"] | StoredRows) -> tuple[Float[Tensor, " F"], Float[Tensor, " F"]]:
    """Return the mean and the standard deviation of each feature; a constant feature has an infinite deviation.

    Divided by infinity, a constant feature is zero on every record, and its weights are zero: the train split says
    nothing about it, and a small change in the test split must not become a large one. A feature counts as constant if
    its deviation may be rounding: below 1e-5 of its mean, or below 1e-4 of the lower quartile of all deviations.
    """
    if isinstance(features, Tensor):
        mean, deviation = features.mean(dim=0), features.std(dim=0, correction=min(1, len(features) - 1))
        # Where squares leave the range of float32, this deviation is zero or infinite.
        doubtful = ~((deviation > 1e-15) & deviation.isfinite() & mean.isfinite())
        columns = doubtful.nonzero().flatten()
        if len(columns):
            mean[columns], deviation[columns] = _wide_statistics(features, columns)
    else:
        mean, deviation = _wide_statistics(features, torch.arange(features.shape[1]))
    varies = deviation > 1e-5 * mean.abs()
    if varies.any():
        varies &= deviation > 1e-4 * deviation[varies].quantile(0.25)
    return mean, deviation.where(varies, torch.inf)


def _wide_statistics(
    features: Float[Tensor, "N F"] | StoredRows, columns: Int64[Tensor, " some"]
) -> tuple[Tensor, Tensor]:
    """Return the mean and the standard deviation of some features, computed in float64 and one block at a time."""
    size = _BLOCK if isinstance(features, Tensor) else _STORED_BLOCK
    blocks = [slice(start, start + size) for start in range(0, len(features), size)]
    mean = sum(features[block][:, columns].double().sum(dim=0) for block in blocks) / len(features)
    squares = sum((features[block][:, columns].double() - mean).square().sum(dim=0) for block in blocks)
    return torch.as_tensor(mean).float(), torch.as_tensor(squares / max(1, len(features) - 1)).sqrt().float()


@torch.no_grad()
@exact_float32()
def _scores_of_heads(
    heads: LinearHeads, bank: FeatureBank, device: torch.device, rows: Int64[Tensor, " rows"] | None = None
) -> list[Scores]:
    """Return the accuracies and the predictions of each head on some records, or on all.

    Records are scored in blocks, since all scores at once may not fit in memory, and the results are read once.
    """
    features, all_labels = on_device(bank.features, device), to_device(bank.labels, device)
    num_records = len(bank.labels) if rows is None else len(rows)
    slices = [slice(start, start + _BLOCK) for start in range(0, num_records, _BLOCK)]
    rows_on_device = None if rows is None else to_device(rows, device)
    all_hits, all_predicted, all_scores = [], [], []
    for block in slices:
        there = block if rows_on_device is None else rows_on_device[block]
        labels = all_labels[there]
        logits = heads(take(features, block if rows is None else rows[block], there, device))  # (heads, B, C)
        all_hits.append(torch.stack([top_hits(of_head, labels) for of_head in logits]))  # (heads, 2, B)
        all_predicted.append(logits.argmax(dim=-1))
        all_scores.append((logits.amax(dim=-1) - logits.logsumexp(dim=-1)).exp())
    of_heads = zip(*(torch.cat(blocks, dim=-1).cpu() for blocks in (all_hits, all_predicted, all_scores)), strict=True)
    return [scores_of_hits(hits, predicted, score, "linear") for hits, predicted, score in of_heads]


def choice_metrics(lrs: Sequence[float], by_head: Sequence[Scores]) -> dict[str, float]:
    """Return the learning rate with the best accuracy on the held-out train records; of equal ones, the first.

    `linear_lr` is the chosen rate, `linear_validation_top1` its accuracy on the held-out train records, and
    `linear_validation_top1@<lr>` that of each rate.
    """
    top1 = [scores.metrics["linear_top1"] for scores in by_head]
    by_lr = {f"linear_validation_top1@{lr:g}": accuracy for lr, accuracy in zip(lrs, top1, strict=True)}
    return {"linear_lr": lrs[top1.index(max(top1))], "linear_validation_top1": max(top1)} | by_lr


def sweep_scores(lrs: Sequence[float], by_head: Sequence[Scores]) -> Scores:
    """Return `linear_top1` and `linear_top5` of the head with the best test accuracy, as some published sweeps do.

    With several heads, `linear_lr` is the learning rate of the best one, and `linear_top1@<lr>` the accuracy of each,
    which shows the effect of choosing on the test split.
    """
    top1 = [scores.metrics["linear_top1"] for scores in by_head]
    best = by_head[top1.index(max(top1))]
    if len(by_head) == 1:
        return best
    names = [f"linear_top1@{lr:g}" for lr in lrs]
    metrics = {"linear_lr": lrs[top1.index(max(top1))]} | dict(zip(names, top1, strict=True))
    by_record = {name: scores.by_record["linear_top1"] for name, scores in zip(names, by_head, strict=True)}
    return replace(best, metrics=best.metrics | metrics, by_record=best.by_record | by_record)


def heads_scores(
    backbone: Backbone, heads: LinearHeads, views: RecordViews, device: torch.device
) -> tuple[list[Scores], FeatureBank]:
    """Return the scores of each head, with softmax averaged over the clips and crops of each record.

    The features of the records are returned beside the scores.

    Args:
        backbone: Maps clips (B, C, T, S, S) to features (B, F).
        heads: Linear classifiers.
        views: The clips and crops.
        device: The device to compute on.

    Raises:
        MediaError: If a file cannot be read.
        ConfigError: If the scores are NaN or infinite.
    """
    head = nn.Sequential(heads, _HeadsLast())
    bank, probabilities = features_and_probabilities(backbone, head, views, device)  # (N, heads, C)
    return [classification_scores(each, bank.labels, "linear") for each in probabilities.unbind(dim=1)], bank


class _HeadsLast(nn.Module):
    """Move the heads behind the batch: (heads, B, C) to (B, heads, C)."""

    def forward(self, logits: Float[Tensor, "heads B C"]) -> Float[Tensor, "B heads C"]:
        return logits.transpose(0, 1)
