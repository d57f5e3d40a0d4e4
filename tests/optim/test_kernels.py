"""Tests of the optimizers on a fake GPU: few launches, no waits, and states from elsewhere."""

import pytest
import torch
from torch import nn

from eztorch_sce.registry import choices

pytest.importorskip("fake_gpu", exc_type=ImportError)
from fake_gpu import CUDA, fake_gpu, on_fake_gpu


@pytest.mark.parametrize("name", ["lars", "sgd", "adamw"])
@pytest.mark.parametrize("is_scaled", [False, True])
def test_a_step_on_a_gpu_launches_little_and_never_waits(name: str, is_scaled: bool) -> None:
    with fake_gpu() as gpu:
        network = nn.Sequential(*[layer for _ in range(20) for layer in (nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3))])
        on_fake_gpu(network)
        optimizer = choices("optimizer")[name]().build(network.parameters(), 0.1)
        scaler = torch.amp.GradScaler("cuda", enabled=is_scaled)
        scaler.scale(torch.zeros((), device=CUDA))
        for _ in range(2):  # the first step makes the state
            gpu.clear()
            for parameter in network.parameters():
                parameter.grad = torch.empty_like(parameter)
            gpu.clear()
            scaler.step(optimizer)
            scaler.update()
    assert not gpu.waits
    assert gpu.num_kernels <= (30 if is_scaled else 25)


@pytest.mark.parametrize("name", ["lars", "sgd", "adamw"])
def test_a_state_of_an_earlier_version_fits_the_kernels_of_this_device(name: str) -> None:
    config = choices("optimizer")[name]()
    filters = nn.Parameter(torch.randn(8, 4, 3, 3))
    filters.grad = torch.randn_like(filters)
    saved = config.build([filters], 0.1)
    saved.step()
    state = saved.state_dict()
    for group in state["param_groups"]:
        group.pop("fused", None)  # as torch before 2.0
    with fake_gpu() as gpu:
        on_gpu = nn.Parameter(torch.empty(8, 4, 3, 3, device=CUDA).to(memory_format=torch.channels_last))
        resumed = config.build([on_gpu], 0.1)
        resumed.load_state_dict(state)
        on_gpu.grad = torch.empty_like(on_gpu)
        gpu.clear()
        resumed.step()
        assert any(kernel.startswith("_fused_") for kernel in gpu.kernels)
        for value in resumed.state[on_gpu].values():
            assert value.is_cuda
            assert value.ndim == 0 or value.stride() == on_gpu.stride()  # else, the kernels refuse it
