"""Tests of the contract of methods and losses: what is missing is named, all at once, before training starts."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from eztorch_sce.errors import ConfigError
from eztorch_sce.losses.sce import SCEConfig, SCELoss
from eztorch_sce.methods.base import check_loss, check_method, check_views, problems_with_output
from eztorch_sce.methods.loss_calls import use_of_negatives
from eztorch_sce.methods.momentum_contrast import MomentumContrast, MomentumContrastConfig
from eztorch_sce.methods.simclr import SimCLR, SimCLRConfig
from eztorch_sce.models.backbones.small import SmallR2Plus1DConfig
from eztorch_sce.models.heads import ProjectorConfig
from eztorch_sce.types import StepOutput

HEAD = ProjectorConfig(hidden_dim=8, num_hidden=1, output_dim=4)


class Complete(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(3, 2)

    def forward(self, views: list[Tensor]) -> StepOutput:
        embeddings = self.backbone(views[0])
        return StepOutput(embeddings.mean(), {}, embeddings.detach())

    def after_step(self, progress: float) -> None: ...


def without(*names: str) -> nn.Module:
    """Return a method that lacks some attributes."""
    members = {name: member for name, member in vars(Complete).items() if name not in (*names, "__dict__", "__init__")}
    method: nn.Module = type("Partial", (nn.Module,), members)()
    if "backbone" not in names:
        method.backbone = nn.Linear(3, 2)
    return method


def hidden_backbone() -> Any:
    method: Any = without("backbone")
    method.networks = [nn.Linear(3, 2)]
    type(method).backbone = property(lambda self: self.networks[0])
    return method


def other_signatures() -> Any:
    method: Any = without()
    method.forward = lambda first, second: None
    method.after_step = lambda: None
    return method


@pytest.mark.parametrize(
    ("method", "parts"),
    [
        (object(), ["method=object: object is not an nn.Module"]),
        (nn.Identity(), ["has no after_step(progress)", "has no backbone", "has no parameter to train"]),
        (without("forward"), ["Partial has no forward(views), which returns StepOutput(loss, metrics, embeddings)"]),
        (hidden_backbone(), ["does not contain its backbone as a submodule", "has no parameter to train"]),
        (other_signatures(), ["takes (first, second) in forward", "takes () in after_step"]),
        (without().requires_grad_(False), ["has no parameter to train"]),
    ],
)
def test_all_that_a_method_lacks_is_named_at_once(method: object, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        check_method(method)
    assert len(raised.value.problems) == 1
    for part in parts:
        assert part in str(raised.value)
    check_method(Complete())


@pytest.mark.parametrize(
    ("loss", "problem"),
    [
        (lambda query: query, "takes (query); a loss is called as (query, key) or (query, key, negatives=None)"),
        (nn.CosineEmbeddingLoss(), None),
        (3.0, "loss=float: float cannot be called"),
        (None, "NoneType cannot be called"),
        (SCELoss, "loss=SCELoss is a class: pass an object, such as SCELoss()"),
        (SCEConfig(), "SCEConfig cannot be called; pass what SCEConfig.build() returns"),
        (lambda q, k, *, margin: q, "takes (q, k, margin)"),
        (lambda q, k: q, None),
        (torch.nn.functional.mse_loss, None),
    ],
)
def test_a_loss_that_cannot_be_called_is_named(loss: Any, problem: str | None) -> None:
    if problem is None:
        check_loss(loss)
        return
    with pytest.raises(ConfigError) as raised:
        check_loss(loss)
    assert problem in str(raised.value)


@pytest.mark.parametrize(
    ("loss", "use"),
    [
        (lambda query, key: query, "none"),
        (lambda query, key, negatives: query, "required"),
        (lambda query, key, negatives=None: query, "optional"),
        (lambda query, key, temperature=0.1: query, "none"),
        (lambda *rows: rows[0], "optional"),
        (partial(lambda query, key, negatives, margin: query, margin=1.0), "required"),
        (SCELoss(), "required"),
    ],
)
def test_the_signature_of_a_loss_says_whether_it_takes_negatives(loss: Any, use: str) -> None:
    assert use_of_negatives(loss) == use


def queries_only(query: Tensor, key: Tensor) -> Tensor:
    return (query - key).square().mean()


def needs_queue(query: Tensor, key: Tensor, negatives: Tensor) -> Tensor:
    return (query @ negatives.T).mean()


def either(query: Tensor, key: Tensor, negatives: Tensor | None = None) -> Tensor:
    return (query * key).mean()


def contrast(loss: Any, **settings: Any) -> nn.Module:
    backbone = SmallR2Plus1DConfig(width=4, num_blocks=1).build()
    return MomentumContrast(backbone, loss, MomentumContrastConfig(HEAD, **settings))


def simclr(loss: Any) -> nn.Module:
    return SimCLR(SmallR2Plus1DConfig(width=4, num_blocks=1).build(), loss, SimCLRConfig(HEAD))


@pytest.mark.parametrize(
    ("build", "problem"),
    [
        (lambda: contrast(queries_only, queue_size=8), r"queue_size=8: queries_only takes \(query, key\) only"),
        (lambda: contrast(needs_queue, queue_size=0), r"needs_queue needs negatives, and the method has no queue"),
        (lambda: contrast(either, queue_size=8, batch_keys=True), r"batch_keys=true: with a queue, only a loss with"),
        (lambda: contrast(SCELoss(), queue_size=0), r"SCELoss needs negatives, and the method has neither queue nor"),
        (lambda: simclr(needs_queue), r"needs_queue needs negatives, and the method has no queue: give the parameter"),
        (lambda: contrast(either, queue_size=-1), r"method\.queue_size=-1 must be at least 0"),
    ],
)
def test_a_loss_that_does_not_fit_the_negatives_is_explained(build: Callable[[], nn.Module], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        build()


def test_mistakes_in_the_first_step_are_named_at_once() -> None:
    loss = torch.ones((), requires_grad=True)
    fine = StepOutput(loss, {"accuracy": torch.tensor(1.0)}, torch.ones(4, 2))
    method = Complete()
    assert problems_with_output(fine, method) == []
    assert problems_with_output(loss, method) == [
        "Complete.forward returned a tensor () of torch.float32: it must return StepOutput(loss, metrics, embeddings)"
    ]
    metrics: Any = {"shown": loss, "count": 3}
    rows: Any = None
    problems = problems_with_output(StepOutput(torch.ones(4), metrics, rows), method)
    for part in (
        "loss is a tensor (4,)",
        "metrics['shown'] is not detached",
        "metrics['count'] is a int",
        "embeddings are a NoneType",
    ):
        assert any(part in problem for problem in problems), part
    assert "loss has no gradient" in problems_with_output(fine._replace(loss=loss.detach()), method)[0]


def test_a_batch_with_too_few_views_is_named() -> None:
    method: Any = contrast(either)
    view = torch.randn(4, 3, 2, 32, 32)
    with pytest.raises(ValueError, match=r"MomentumContrast takes a list of at least 2 views .*: got 1"):
        method([view])
    with pytest.raises(ValueError, match=r"got a tensor \(4, 3, 2, 32, 32\)"):
        check_views(view, 2, method)
