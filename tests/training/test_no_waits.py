"""Training steps on fake CUDA tensors: the host never waits for the GPU, and every operator has a kernel there.

The module, its views, optimizer and callbacks are driven by Lightning, for one process and for the first of eight.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

pytest.importorskip("fake_gpu", exc_type=ImportError)
from fake_gpu import fake_gpu, fake_processes
from fake_training import PRECISIONS, Frames, train_on_fake_gpu

from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.augment.views import Views
from eztorch_sce.config.compose import compose
from eztorch_sce.config.schema import PretrainConfig
from eztorch_sce.evaluation.linear import LinearHeads
from eztorch_sce.losses.pairs import PairLosses, ViewPairs
from eztorch_sce.losses.sce import SCEConfig, SCELoss
from eztorch_sce.methods.base import MethodConfig, build_method, has_own_loss
from eztorch_sce.methods.momentum_contrast import MomentumContrast, MomentumContrastConfig
from eztorch_sce.models.backbones.base import Backbone, as_backbone
from eztorch_sce.models.batch_norm import sync_batch_norms
from eztorch_sce.models.classifier import Classifier
from eztorch_sce.models.heads import PredictorConfig, ProjectorConfig
from eztorch_sce.optim.base import OptimizerConfig
from eztorch_sce.optim.schedules import ScheduleConfig
from eztorch_sce.optim.sgd import SGDConfig
from eztorch_sce.registry import choices
from eztorch_sce.settings import chosen
from eztorch_sce.training.classify_module import ClassifyModule
from eztorch_sce.training.pretrain_module import PretrainModule
from eztorch_sce.training.probe_module import ProbeModule, ValidationHeads
from eztorch_sce.types import Batch, StepOutput, ViewBatch

pytestmark = pytest.mark.xdist_group("no waits")  # they share results of operators, which take long the first time


class Tiny(Backbone):
    """A network of few operators, for images and clips."""

    def __init__(self) -> None:
        super().__init__("tiny", num_features=4)
        self.stem = nn.Sequential(nn.Conv3d(3, 4, (1, 3, 3), (1, 4, 4)), nn.BatchNorm3d(4), nn.ReLU(inplace=True))

    def features(self, clips: Tensor) -> Tensor:
        result: Tensor = self.stem(clips).mean(dim=(2, 3, 4))
        return result


@dataclass
class Form:
    """Views and frames of a step."""

    views: list[ViewConfig]
    frames: Frames


_PLAIN = ViewConfig(size=16, flip=0.5)  # the operators of views do not depend on the method
_STRONG = replace(_PLAIN, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, gray=0.2, blur=0.5, solarize=0.2)


def forms(view: ViewConfig) -> dict[str, Form]:
    """Return images and videos in two views, in views of several sizes, and cropped on the device."""
    made = {}
    for kind, num_frames in (("image", 1), ("video", 3)):
        each = replace(view, temporal_difference=0.2) if view.blur and num_frames > 1 else view
        local = replace(each, size=12)
        made[f"{kind}, two views"] = Form([each, each], Frames(num_frames=num_frames))
        made[f"{kind}, multi-crop"] = Form([each, each, local, local], Frames(num_frames=num_frames))
        made[f"{kind}, canvas"] = Form([each, each], Frames(num_frames=num_frames, canvas=24))
    return made


TWO_VIEWS = {"image, two views": forms(_PLAIN)["image, two views"]}
ONE_VIEW = {name: Form(form.views[:1], form.frames) for name, form in forms(_PLAIN).items() if "multi" not in name}


class ViewsInTurn(nn.Module):
    """The views of another form in each step."""

    def __init__(self, forms: Sequence[Form]) -> None:
        super().__init__()
        self.views = nn.ModuleList(Views(form.views, 0, form.frames.canvas) for form in forms)
        self.step = 0

    def forward(self, batch: Batch) -> ViewBatch:
        views = self.views[self.step]
        self.step += 1
        return cast(ViewBatch, views(batch))


def check_steps(
    module: pl.LightningModule,
    forms: dict[str, Form],
    precision: str = "bf16-mixed",
    processes: int = 1,
    views: type["ViewsInTurn"] = ViewsInTurn,
) -> None:
    """Check that a step of each form waits for nothing, that a further one reads the metrics in one copy, and kernels.

    The views of the module are those of the forms.
    """
    in_order = [*forms.items(), next(iter(forms.items()))]
    module.augmentation = views([form for _, form in in_order])
    if processes > 1:
        sync_batch_norms(module)
    group = fake_processes(processes) if processes > 1 else nullcontext()
    with group, fake_gpu() as counts:
        batches = [form.frames.batches(form.views, 1)[0] for _, form in in_order]
        *ordinary, last = train_on_fake_gpu(module, batches, precision, len(batches), counts)
    assert {name: step.waits for name, step in zip(forms, ordinary, strict=True) if step.waits} == {}
    assert [step.failures for step in (*ordinary, last) if step.failures] == []
    assert [name.split(" at ")[0] for name in last.waits] == ["blocking copy from cuda to cpu"], last.waits
    if processes > 1:
        for step in ordinary:
            assert sum(count for name, count in step.collectives.items() if name.endswith("cpu")) == 1, step.collectives


def registered_methods() -> dict[str, MethodConfig]:
    return {name: config() for name, config in choices("method").items()}


def method_configs() -> dict[str, MethodConfig]:
    """Return every registered method, and momentum contrast with each setting that changes what it computes."""
    contrast = partial(MomentumContrastConfig, queue_size=16)
    return registered_methods() | {
        "queue and batch keys": contrast(batch_keys=True),
        "shuffle BN": contrast(shuffle_bn=True, symmetric=False, predictor=None),
        "split batch norm without queue": contrast(queue_size=0, batch_keys=True, bn_splits=2),
    }


def some_forms(precision: str, view: ViewConfig = _PLAIN) -> dict[str, Form]:
    """Return one form of images and one of videos, so that all precisions together have all forms."""
    return dict([*forms(view).items()][PRECISIONS.index(precision) :: 3])


def pretraining(method: MethodConfig, loss: Any = None, optimizer: OptimizerConfig | None = None) -> PretrainModule:
    """Return the module of a pretraining with a tiny network."""
    if hasattr(method, "projector"):
        method.projector = ProjectorConfig(num_hidden=0, output_dim=4)
    if getattr(method, "predictor", None) is not None:
        method.predictor = PredictorConfig(hidden_dim=8)  # type: ignore[attr-defined]
    built, built_loss = build_method(method, None if has_own_loss(method) else loss or SCEConfig(), Tiny())
    return PretrainModule(built, Views([]), optimizer or SGDConfig(), ScheduleConfig(), 4, loss=built_loss)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("method", method_configs())
def test_a_step_of_every_method_waits_for_nothing(method: str, precision: str) -> None:
    each = forms(_PLAIN) if method in registered_methods() else some_forms(precision)
    check_steps(pretraining(method_configs()[method]), each, precision)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("method", method_configs())
def test_a_step_of_every_method_on_the_first_of_eight_processes_makes_one_exchange(method: str, precision: str) -> None:
    check_steps(pretraining(method_configs()[method]), some_forms(precision), precision, processes=8)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_strong_views_wait_for_nothing(precision: str) -> None:
    check_steps(pretraining(MomentumContrastConfig(queue_size=16)), some_forms(precision, _STRONG), precision)


def fitting_losses() -> dict[str, MethodConfig]:
    """Return a method for every registered loss."""
    with_negatives = {name: getattr(config(), "needs_negatives", True) for name, config in choices("loss").items()}
    methods = {True: "momentum_contrast", False: "momentum_predict"}
    return {name: choices("method")[methods[needs]]() for name, needs in with_negatives.items()}


@pytest.mark.parametrize("loss", fitting_losses())
def test_a_step_with_every_loss_waits_for_nothing(loss: str) -> None:
    module = pretraining(fitting_losses()[loss], choices("loss")[loss]())
    check_steps(module, TWO_VIEWS, "16-mixed", processes=8)


def test_losses_that_are_plain_functions_wait_for_nothing() -> None:
    def loss(query: Tensor, key: Tensor, negatives: Tensor | None = None) -> Tensor:
        return (query - key).square().sum(dim=1).mean()

    module = pretraining(MomentumContrastConfig(queue_size=16))
    module.method = MomentumContrast(Tiny(), loss, MomentumContrastConfig(queue_size=0))
    check_steps(module, TWO_VIEWS)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("optimizer", choices("optimizer"))
def test_a_step_of_every_optimizer_waits_for_nothing(optimizer: str, precision: str) -> None:
    module = pretraining(MomentumContrastConfig(queue_size=16), optimizer=choices("optimizer")[optimizer]())
    check_steps(module, TWO_VIEWS, precision)


@pytest.mark.parametrize("processes", [1, 8])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_step_of_fine_tuning_with_mixup_waits_for_nothing(precision: str, processes: int) -> None:
    module = ClassifyModule(Classifier(Tiny(), 2, 0.5), Views([]), SGDConfig(), ScheduleConfig(), 4, 0.9, mixup=0.8)
    check_steps(module, ONE_VIEW, precision, processes)


@pytest.mark.parametrize("processes", [1, 8])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_step_of_a_linear_probe_on_views_waits_for_nothing(precision: str, processes: int) -> None:
    heads = LinearHeads(4, 2, [0.1, 1.0])
    validation = ValidationHeads(heads, torch.arange(8) % 2 == 0)
    module = ProbeModule(Tiny(), heads, Views([]), SGDConfig(), ScheduleConfig(), 4, validation)
    check_steps(module, ONE_VIEW, precision, processes)


RECIPES = {  # one of each family, with a smaller network of the same kind
    "imagenet_resnet50_100ep": ["backbone=resnet18"],
    "imagenet_resnet50_multicrop": ["backbone=resnet18"],
    "k400_r3d50": ["backbone=r3d18"],
    "k400_moco_v3": ["backbone=r3d18"],
    "cifar10_resnet18": ["data.canvas=40"],
}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_step_of_a_published_recipe_waits_for_nothing(recipe: str) -> None:
    config = compose("pretrain", [f"recipe={recipe}", "data.root=.", *RECIPES[recipe]])
    assert isinstance(config, PretrainConfig)
    backbone = as_backbone(chosen(config.backbone).build())
    method, loss = build_method(config.method, config.loss, backbone)
    module = PretrainModule(method, Views([]), chosen(config.optimizer), config.schedule, 4, loss=loss)
    frames = Frames(batch_size=16, num_frames=config.data.num_frames or 8, canvas=config.data.canvas)
    check_steps(module, {recipe: Form(config.views, frames)})


@pytest.mark.parametrize("precision", PRECISIONS)
def test_skipping_waits_once_for_each_step(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.zeros(16, dtype=torch.uint8))
    module = pretraining(MomentumContrastConfig(queue_size=16))
    form = TWO_VIEWS["image, two views"]
    module.augmentation = ViewsInTurn([form] * 3)  # type: ignore[assignment]
    with fake_gpu() as counts:
        batches = form.frames.batches(form.views, 3)
        steps = train_on_fake_gpu(module, batches, precision, 100, counts, on_nonfinite="skip")
    assert [sum(step.waits.values()) for step in steps] == [1, 1, 2]  # the last is logged too


class WaitingMethod(MomentumContrast):
    def forward(self, views: list[Tensor]) -> StepOutput:
        output = super().forward(views)
        return output._replace(loss=output.loss * (1 if output.loss > 0 else 2))


class WaitingLoss(SCELoss):
    def over_pairs(self, views: ViewPairs) -> PairLosses:
        self.temperature = 0.1 + 0 * float(views.queries[0].mean())
        return super().over_pairs(views)


class WaitingViews(ViewsInTurn):
    def forward(self, batch: Batch) -> ViewBatch:
        made = super().forward(batch)
        return made._replace(views=[view[view.flatten(1).mean(dim=1) > -1] for view in made.views])


class WaitingModule(PretrainModule):
    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.log("norm", next(self.parameters()).norm().item())


class WaitingMetrics(MomentumContrast):
    """Its metrics are read one by one, in steps that log."""

    def forward(self, views: list[Tensor]) -> StepOutput:
        output = super().forward(views)
        return output._replace(metrics={name: torch.tensor(float(value)) for name, value in output.metrics.items()})


class MissingKernel(MomentumContrast):
    def forward(self, views: list[Tensor]) -> StepOutput:
        output = super().forward(views)
        torch.linalg.eigvalsh(output.embeddings.T.half() @ output.embeddings.half())
        return output


def planted(kind: str) -> PretrainModule:
    config, network = MomentumContrastConfig(queue_size=16), Tiny()
    methods = {"method": WaitingMethod, "metrics": WaitingMetrics, "kernel": MissingKernel}
    loss = WaitingLoss() if kind == "loss" else SCELoss()
    method = methods.get(kind, MomentumContrast)(network, loss, config)
    module = WaitingModule if kind == "module" else PretrainModule
    return module(method, Views([]), SGDConfig(), ScheduleConfig(), 4, loss=loss)


@pytest.mark.parametrize("kind", ["method", "loss", "views", "module", "metrics", "kernel"])
def test_a_planted_wait_is_found(kind: str) -> None:
    with pytest.raises(AssertionError, match=r"test_no_waits\.py"):
        check_steps(planted(kind), TWO_VIEWS, views=WaitingViews if kind == "views" else ViewsInTurn)


def test_without_a_planted_wait_none_is_found() -> None:
    check_steps(planted("none"), TWO_VIEWS)
