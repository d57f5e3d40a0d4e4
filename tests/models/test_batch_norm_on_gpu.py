"""Tests of synchronized batch norm on a fake GPU: no waits, one exchange, few launches, and the layout of its input."""

import pytest
import torch
from torch import nn

from eztorch_sce.models.batch_norm import sync_batch_norms

pytest.importorskip("fake_gpu", exc_type=ImportError)
from fake_gpu import CUDA, autocast, fake_gpu, fake_processes, on_fake_gpu


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("is_channels_last", [False, True])
def test_the_first_of_eight_processes_does_not_wait(
    momentum: float | None, dtype: torch.dtype | None, is_channels_last: bool
) -> None:
    layout = torch.channels_last if is_channels_last else torch.contiguous_format
    with fake_gpu() as gpu, fake_processes(8):
        norm = on_fake_gpu(sync_batch_norms(nn.BatchNorm2d(4, momentum=momentum)))
        x = torch.empty(2, 4, 3, 3, device=CUDA, dtype=dtype, requires_grad=True)
        with autocast(dtype):
            output = norm(x.contiguous(memory_format=layout))
        launched = gpu.num_kernels
        assert dict(gpu.collectives) == {"allgather_base of cuda": 1}
        output.backward(torch.empty_like(output))
        assert (output.dtype, output.is_contiguous(memory_format=layout)) == (x.dtype, True)
        assert norm.weight.grad is not None
        assert norm.weight.grad.dtype == torch.float32
        assert gpu.collectives["allreduce of cuda"] == 1
        assert not gpu.waits
        assert not gpu.failures
        if momentum is not None:
            assert launched <= 7 + is_channels_last
