"""Optimizers and schedules."""

import doctest

import pytest
import torch
from torch import nn

from eztorch_sce.optim import schedules
from eztorch_sce.optim.lars import LARS, LARSConfig
from eztorch_sce.registry import choices


def test_lars_by_hand() -> None:
    weight = nn.Parameter(torch.tensor([[3.0, 4.0]]))  # norm 5
    bias = nn.Parameter(torch.tensor([1.0]))
    weight.grad, bias.grad = torch.tensor([[0.0, 2.0]]), torch.tensor([0.5])
    LARS([{"params": [weight, bias]}], lr=0.1, momentum=0.9, trust_coefficient=0.01).step()
    # The step on the matrix has the norm lr x trust x |w|, whatever the gradient's; the bias takes lr x gradient.
    torch.testing.assert_close(weight.data, torch.tensor([[3.0, 4.0 - 0.1 * 0.01 * 5]]))
    torch.testing.assert_close(bias.data, torch.tensor([0.95]))


def test_lars_momentum_adds_up() -> None:
    bias = nn.Parameter(torch.tensor([0.0]))
    optimizer = LARS([bias], lr=1, momentum=0.5)
    for _ in range(2):
        bias.grad = torch.tensor([1.0])
        optimizer.step()
    torch.testing.assert_close(bias.data, torch.tensor([-2.5]))  # 1, then 1 + 0.5


def test_lars_decays_matrices_alone() -> None:
    weight, bias = nn.Parameter(torch.ones(1, 1)), nn.Parameter(torch.ones(1))
    weight.grad, bias.grad = torch.zeros(1, 1), torch.zeros(1)
    LARSConfig(weight_decay=0.5, trust_coefficient=1).build([weight, bias], lr=0.1).step()
    torch.testing.assert_close(weight.data, torch.tensor([[0.9]]))  # the ratio makes the step lr x |w|
    torch.testing.assert_close(bias.data, torch.tensor([1.0]))


@pytest.mark.parametrize("name", choices("optimizer"))
def test_every_optimizer_goes_down_a_bowl_and_resumes(name: str) -> None:
    def run(steps: int, state: object = None) -> tuple[float, object, torch.Tensor]:
        x = nn.Parameter(torch.ones(2, 2) if state is None else state[1].clone())  # type: ignore[index]
        optimizer = choices("optimizer")[name]().build([x], lr=0.05)
        if state is not None:
            optimizer.load_state_dict(state[0])  # type: ignore[index]
        for _ in range(steps):
            optimizer.zero_grad()
            (x**2).sum().backward()
            optimizer.step()
        return float((x.detach() ** 2).sum()), optimizer.state_dict(), x.detach()

    straight, _, x = run(20)
    assert straight < 4
    _, state, half = run(10)
    _, _, resumed = run(10, (state, half))
    torch.testing.assert_close(resumed, x)


def test_schedule_examples() -> None:
    assert doctest.testmod(schedules).failed == 0
    assert schedules.warmup_cosine(0, warmup_steps=0, num_steps=10) == 1
    assert schedules.warmup_cosine(10, warmup_steps=0, num_steps=10) == pytest.approx(0)
