"""Tests of the optimizers and the schedule."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from eztorch_sce.optim.base import OptimizerConfig
from eztorch_sce.optim.groups import with_rates
from eztorch_sce.optim.kernels import start_velocity_at_zero
from eztorch_sce.optim.lars import LARS, LARSConfig
from eztorch_sce.optim.schedules import ScheduleConfig, warmup_cosine
from eztorch_sce.optim.sgd import SGDConfig
from eztorch_sce.registry import choices
from eztorch_sce.settings import invalid_settings


def test_a_lars_step_matches_hand_computation() -> None:
    weight = nn.Parameter(torch.tensor([[3.0, 4.0]]))  # norm 5
    bias = nn.Parameter(torch.tensor([1.0]))
    weight.grad, bias.grad = torch.tensor([[0.0, 2.0]]), torch.tensor([0.5])
    LARS([{"params": [weight, bias]}], lr=0.1, momentum=0.9, trust_coefficient=0.01).step()
    # The step of a matrix has norm lr * trust * |w|, whatever the norm of its gradient; the step of a bias is lr * g.
    torch.testing.assert_close(weight.data, torch.tensor([[3.0, 4.0 - 0.1 * 0.01 * 5]]))
    torch.testing.assert_close(bias.data, torch.tensor([0.95]))


def test_the_velocity_of_lars_accumulates() -> None:
    bias = nn.Parameter(torch.tensor([0.0]))
    optimizer = LARS([bias], lr=1, momentum=0.5)
    for _ in range(2):
        bias.grad = torch.tensor([1.0])
        optimizer.step()
    torch.testing.assert_close(bias.data, torch.tensor([-2.5]))  # 1, then 1 + 0.5


def test_lars_decays_matrices_but_not_biases() -> None:
    weight, bias = nn.Parameter(torch.ones(1, 1)), nn.Parameter(torch.ones(1))
    weight.grad, bias.grad = torch.zeros(1, 1), torch.zeros(1)
    LARSConfig(weight_decay=0.5, trust_coefficient=1).build([weight, bias], lr=0.1).step()
    torch.testing.assert_close(weight.data, torch.tensor([[0.9]]))  # the trust ratio gives the step a norm of lr * |w|
    torch.testing.assert_close(bias.data, torch.tensor([1.0]))


Resumable = tuple[dict[str, Any], torch.Tensor]


def minimize_square(config: OptimizerConfig, steps: int, start: Resumable | None = None) -> Resumable:
    """Take optimizer steps on |x|^2 from ones, or from an earlier state; return the new state."""
    x = nn.Parameter(torch.ones(2, 2) if start is None else start[1].clone())
    optimizer = config.build([x], lr=0.05)
    if start is not None:
        optimizer.load_state_dict(start[0])
    for _ in range(steps):
        optimizer.zero_grad()
        torch.autograd.backward(x.square().sum())
        optimizer.step()
    return optimizer.state_dict(), x.detach()


@pytest.mark.parametrize("name", choices("optimizer"))
def test_every_optimizer_minimizes_a_square_and_resumes(name: str) -> None:
    config = choices("optimizer")[name]()
    assert isinstance(config, OptimizerConfig)
    _, x = minimize_square(config, steps=20)
    assert x.square().sum() < 4
    _, resumed = minimize_square(config, steps=10, start=minimize_square(config, steps=10))
    torch.testing.assert_close(resumed, x)


def some_parameters(dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    """Return parameters of all kinds: filters in either layout, a matrix of zeros, one without gradient, vectors."""
    generator = torch.Generator().manual_seed(0)
    filters = torch.randn(8, 4, 3, 3, generator=generator).to(memory_format=torch.channels_last)
    shapes: list[tuple[int, ...]] = [(16, 8), (8,), (), (3, 3), (5, 5)]
    values = [filters, torch.zeros(4, 4), *[torch.randn(shape, generator=generator) for shape in shapes]]
    return [nn.Parameter(value.to(dtype)) for value in values]


def gradients(parameters: list[nn.Parameter], step: int) -> list[Tensor | None]:
    """Return gradients of a step, in the layout of the parameters: one is zero, and the last parameter has none."""
    generator = torch.Generator().manual_seed(step)
    drawn = [torch.empty_like(each).copy_(torch.randn(each.shape, generator=generator)) for each in parameters]
    return [*drawn[:-2], torch.zeros_like(drawn[-2]), None]


@pytest.mark.parametrize("decay", [0.0, 1e-6, 0.1])
def test_lars_takes_the_same_step_for_many_tensors_together(decay: float) -> None:
    one, many = some_parameters(), some_parameters()
    first, second = LARS(one, lr=0.5, weight_decay=decay), LARS(many, lr=0.5, weight_decay=decay)
    for step in range(5):
        for parameters in (one, many):
            for parameter, gradient in zip(parameters, gradients(parameters, step), strict=True):
                parameter.grad = gradient
        first.step()
        for matrices in (True, False):  # the step of a GPU, here on the CPU
            alike: list[Tensor] = [each for each in many if each.grad is not None and (each.ndim > 1) is matrices]
            second._step_many(alike, second.param_groups[0])
    for parameter, reference in zip(many, one, strict=True):
        torch.testing.assert_close(parameter, reference, rtol=1e-12, atol=1e-12)
    velocities = [{k: state["velocity"] for k, state in each.state_dict()["state"].items()} for each in (second, first)]
    torch.testing.assert_close(*velocities, rtol=1e-12, atol=1e-12)


def test_a_lars_step_with_an_infinite_gradient_is_skipped() -> None:
    scaled, reference = some_parameters(torch.float32), some_parameters(torch.float32)
    optimizer, expected = LARS(scaled, lr=0.5), LARS(reference, lr=0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(torch.zeros(()))
    for step in range(4):
        is_lost = step == 2
        before = [parameter.detach().clone() for parameter in scaled]
        for parameter, gradient in zip(scaled, gradients(scaled, step), strict=True):
            parameter.grad = None if gradient is None else gradient * scaler.get_scale()
        if is_lost:
            assert scaled[0].grad is not None
            scaled[0].grad[0, 0, 0, 0] = torch.inf
        scaler.step(optimizer)
        scaler.update()
        if is_lost:
            assert all(torch.equal(parameter, value) for parameter, value in zip(scaled, before, strict=True))
            continue
        for parameter, gradient in zip(reference, gradients(reference, step), strict=True):
            parameter.grad = gradient
        expected.step()
    assert scaler.get_scale() == 512
    for parameter, value in zip(scaled, reference, strict=True):
        torch.testing.assert_close(parameter, value)


def test_fused_sgd_survives_a_scaler_that_skips_the_first_step() -> None:
    parameter = nn.Parameter(torch.ones(100, 100))
    optimizer = start_velocity_at_zero(torch.optim.SGD([parameter], lr=0.5, momentum=0.5, fused=True))
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(torch.zeros(()))
    for gradient in (torch.inf, 1.0, 1.0):
        unused = torch.full_like(parameter, torch.nan)
        del unused  # the allocator gives this memory to whoever does not initialize it
        parameter.grad = torch.full_like(parameter, gradient) * scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
    assert (parameter == 1 - 0.5 - 0.75).all()  # velocities of 1 and 1.5


def test_each_set_of_parameters_has_its_own_learning_rate() -> None:
    first, second = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = with_rates(SGDConfig(), [([first], 0.1), ([], 0.2), ([second], 0.3)])
    assert [(group["params"], group["lr"]) for group in optimizer.param_groups] == [([first], 0.1), ([second], 0.3)]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (LARSConfig(lr=-1), "optimizer.lr=-1 must be greater than 0"),
        (SGDConfig(momentum=-3), "optimizer.momentum=-3 must be at least 0 and less than 1"),
        (SGDConfig(nesterov=True, momentum=0), "optimizer.nesterov=true needs optimizer.momentum greater than 0"),
    ],
)
def test_an_invalid_optimizer_setting_is_reported_in_one_message(config: OptimizerConfig, message: str) -> None:
    assert invalid_settings(config, "optimizer") == [message]


def test_the_cosine_falls_from_1_to_0() -> None:
    assert warmup_cosine(0, warmup_steps=0, num_steps=10) == 1
    assert warmup_cosine(10, warmup_steps=0, num_steps=10) == pytest.approx(0)


def test_the_rate_drops_to_a_tenth_after_each_milestone() -> None:
    schedule = ScheduleConfig(milestones=[1, 3])
    factors = [schedule.factor(step, num_steps=8, max_epochs=4) for step in (0, 1, 2, 5, 6, 7)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
