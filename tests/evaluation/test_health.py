"""Tests of the verdicts on trainings: small networks that learn, collapse, diverge, starve, stand still and overfit."""

import time
from pathlib import Path

import numpy as np
import pytest
from own_sources import Arrays, Pixels
from torch import Tensor

from eztorch_sce import api
from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.config.parts import EvaluationViewsConfig
from eztorch_sce.config.schema import FinetuneConfig, PretrainConfig
from eztorch_sce.data.config import DataConfig
from eztorch_sce.errors import TrainingError
from eztorch_sce.evaluation.health import Finding, Training, judge
from eztorch_sce.losses.sce import SCEConfig
from eztorch_sce.methods.momentum_contrast import MomentumContrastConfig
from eztorch_sce.models.backbones.small import SmallR2Plus1DConfig
from eztorch_sce.models.heads import ProjectorConfig
from eztorch_sce.optim.adamw import AdamWConfig
from eztorch_sce.optim.sgd import SGDConfig
from eztorch_sce.report.health import health
from eztorch_sce.report.run_files import RunFiles
from eztorch_sce.report.training_log import read_log


class Slow(Arrays):
    """Frames that take long to read."""

    def read(self, index: int) -> Pixels:
        time.sleep(0.02)
        return super().read(index)


def stripes(count: int, seed: int = 0) -> list[Pixels]:
    """Return images of stripes in a random direction and two random colors: parts of one look like each other."""
    generator = np.random.default_rng(seed)
    row, column = np.mgrid[:24, :24]
    images = []
    for _ in range(count):
        wave = np.sin(generator.uniform(0.2, 0.9) * row + generator.uniform(-0.9, 0.9) * column)[None]
        dark, bright = generator.integers(0, 256, (2, 3, 1, 1))
        images.append((dark + (bright - dark) * (wave + 1) / 2).astype(np.uint8))
    return images


@pytest.fixture
def config(tmp_path: Path) -> PretrainConfig:
    config = PretrainConfig(
        data=DataConfig(batch_size=16, num_workers=0),
        views=[ViewConfig(size=16, scale=[0.5, 1.0]), ViewConfig(size=16, scale=[0.5, 1.0])],
        backbone=SmallR2Plus1DConfig(width=4, num_blocks=1),
        method=MomentumContrastConfig(ProjectorConfig(hidden_dim=16, output_dim=8), queue_size=32, momentum=0.9),
        loss=SCEConfig(temperature=0.2, target_temperature=0.1),
        optimizer=AdamWConfig(lr=0.1),
    )
    config.schedule.warmup_epochs = 0
    config.run.dir, config.run.log_every_n_steps = str(tmp_path / "run"), 1
    config.trainer.max_epochs, config.trainer.accelerator = 8, "cpu"
    return config


def findings(config: PretrainConfig | FinetuneConfig) -> dict[str, Finding]:
    run = RunFiles(Path(str(config.run.dir)), "run")
    return {finding.kind: finding for finding in health(run, read_log(run.directory / "metrics.csv"))}


def attract(query: Tensor, key: Tensor) -> Tensor:
    """Loss that one point for all records minimizes."""
    return 2 - 2 * (query * key).sum(dim=1).mean()


def test_a_training_that_learns_is_healthy_and_says_so(
    config: PretrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    api.pretrain(config, data=Arrays(stripes(64)))
    (found,) = findings(config).values()
    assert (found.level, found.title) == ("good", "No problem found")
    assert "health: no problem found: the loss fell from" in capsys.readouterr().err


def test_without_negatives_and_predictor_a_training_collapses(
    config: PretrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    config.method.queue_size, config.method.predictor, config.method.momentum = 0, None, 0.0
    config.method.projector.output_norm = False
    api.pretrain(config, data=Arrays(stripes(64)), loss=attract)
    assert findings(config)["collapse"].level == "bad"
    assert "warning: collaps" in capsys.readouterr().err


def test_an_absurd_learning_rate_diverges(config: PretrainConfig) -> None:
    config.optimizer, config.backbone = SGDConfig(lr=1e30), SmallR2Plus1DConfig(width=4, num_blocks=1, norm=False)
    with pytest.raises(TrainingError):
        api.pretrain(config, data=Arrays(stripes(64)))
    found = findings(config)
    assert "NaN or infinite" in found["divergence"].text
    assert "optimizer.lr=1e+30" in found["divergence"].cure
    assert "interruption" not in found  # resuming it would not help


def test_a_tiny_learning_rate_does_not_learn(config: PretrainConfig) -> None:
    config.optimizer, config.method.queue_size = AdamWConfig(lr=1e-9), 16  # full after the first step
    api.pretrain(config, data=Arrays(stripes(64)))
    assert "optimizer.lr=1e-09" in findings(config)["no progress"].cure


def test_a_source_that_sleeps_starves_the_training(config: PretrainConfig) -> None:
    config.trainer.max_epochs = 2
    api.pretrain(config, data=Slow(stripes(64)))
    assert "% of its time waiting for data" in findings(config)["starvation"].text


def test_labels_without_sense_are_memorized(config: PretrainConfig) -> None:
    tuning = FinetuneConfig(
        data=config.data,
        views=config.views[:1],
        backbone=SmallR2Plus1DConfig(width=8, num_blocks=1),
        optimizer=AdamWConfig(lr=0.5),
        test=EvaluationViewsConfig(num_clips=1, num_crops=1),
    )
    tuning.views[0].scale = [1.0, 1.0]
    tuning.run, tuning.trainer, tuning.dropout = config.run, config.trainer, 0.0
    tuning.trainer.max_epochs = 20
    api.finetune(tuning, data=Arrays(stripes(16)), test_data=Arrays(stripes(64, seed=1), "test"))
    assert "memorizes" in findings(tuning)["overfitting"].text


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("loss", np.concatenate([np.linspace(5, 3, 30), np.linspace(3, 4.8, 30)]), "divergence"),
        ("grad_norm", np.concatenate([np.ones(40), np.full(5, 50.0)]), "divergence"),
        ("spread", np.linspace(1, 0.05, 40), "collapse"),
        ("effective_rank", np.linspace(40, 1.5, 40), "collapse"),
        ("effective_rank", np.linspace(40, 8, 40), "collapse"),
        ("views_per_s", np.concatenate([np.full(30, 900.0), np.full(10, 300.0)]), "slowing"),
        ("online_linear_top1", np.concatenate([np.linspace(0.1, 0.6, 20), np.linspace(0.6, 0.4, 20)]), "overfitting"),
    ],
)
def test_each_problem_is_found_in_otherwise_healthy_curves(name: str, values: np.ndarray, kind: str) -> None:
    healthy = {
        "loss": np.linspace(5, 3, 60) + 0.05 * np.sin(np.arange(60)),
        "grad_norm": 1 + np.abs(np.sin(np.arange(45))) * 4,
        "spread": np.linspace(1, 0.95, 40),
        "effective_rank": np.linspace(40, 20, 40),
        "views_per_s": np.full(40, 900.0),
        "data_wait": np.full(40, 0.05),
        "online_linear_top1": np.linspace(0.1, 0.6, 40),
    }
    assert [finding.level for finding in judge(Training("pretrain", healthy))] == ["good"]
    assert [finding.kind for finding in judge(Training("pretrain", healthy | {name: values}))] == [kind]


def test_a_loss_that_rises_while_the_queue_fills_and_overflows_of_16_bits_are_normal() -> None:
    norms = np.ones(60)
    norms[:2] = np.inf  # a loss scaler tries too large factors first
    loss = np.concatenate([np.linspace(2, 6, 5), np.linspace(6, 4.5, 55)])
    (finding,) = judge(Training("pretrain", {"loss": loss, "grad_norm": norms}))
    assert finding.level == "good"


def test_a_loss_that_only_rises_gets_one_cure() -> None:
    loss = np.concatenate([np.linspace(3, 2.5, 10), np.linspace(2.5, 8, 50)])
    assert [finding.kind for finding in judge(Training("pretrain", {"loss": loss}))] == ["divergence"]


def test_too_few_steps_are_not_judged() -> None:
    (finding,) = judge(Training("pretrain", {"loss": np.array([5.0, 6.0])}))
    assert finding.title == "Too early to say"
    (finding,) = judge(Training("pretrain", {}))
    assert finding.title == "Nothing logged"


@pytest.mark.parametrize(("batch_size", "kinds"), [(2, set()), (64, {"collapse"})])
def test_two_embeddings_cannot_show_a_collapse_by_their_rank(batch_size: int, kinds: set[str]) -> None:
    curves = {"loss": np.linspace(5, 3, 40), "spread": np.ones(40), "effective_rank": np.ones(40)}
    findings = judge(Training("pretrain", curves, {"data.batch_size": batch_size}))
    assert {finding.kind for finding in findings} - {"none"} == kinds
