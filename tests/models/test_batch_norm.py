"""Tests that synchronized batch norm in several gloo processes equals batch norm over the global batch in one."""

import copy
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.distributed as dist
from process_groups import run_in_process_groups
from torch import Tensor, nn

from eztorch_sce.models.batch_norm import SplitBatchNorm, SyncBatchNorm, sync_batch_norms
from eztorch_sce.models.checkpointing import checkpointed

ROWS = {"even": [4, 4, 4, 4], "uneven": [3, 1, 5, 2], "one each": [1, 1, 1, 1], "one empty": [3, 0, 2, 4]}
NORMS = {2: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}  # by dimensions of the input
LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


class Case(NamedTuple):
    shape: tuple[int, ...]
    rows: list[int]
    dtype: torch.dtype
    affine: bool = True
    momentum: float | None = 0.1
    tracks: bool = True
    mean: float = 0.0
    is_channels_last: bool = False

    def layer(self) -> nn.Module:
        torch.manual_seed(1)
        layer = NORMS[len(self.shape) + 1](
            self.shape[0], affine=self.affine, momentum=self.momentum, track_running_stats=self.tracks
        )
        for parameter in layer.parameters():
            nn.init.normal_(parameter)
        return layer.to(self.dtype)

    def batch(self, world_size: int) -> tuple[list[Tensor], list[Tensor]]:
        """Return the inputs and the gradients of the outputs of all processes."""
        rows = self.rows[:world_size]
        generator = torch.Generator().manual_seed(2)
        drawn = [torch.randn(sum(rows), *self.shape, generator=generator).to(self.dtype) for _ in range(2)]
        return list((drawn[0] + self.mean).split(rows)), list(drawn[1].split(rows))


def cases() -> Iterator[Case]:
    for shape, rows, dtype in product([(6,), (3, 5, 4), (3, 2, 4, 5)], ROWS, [torch.float32, torch.float64]):
        if rows != "one each" or dtype == torch.float64:  # the gradient of two values is a difference of equal numbers
            yield Case(shape, ROWS[rows], dtype)
    uneven = ROWS["uneven"]
    yield Case((3, 5, 4), uneven, torch.float32, affine=False)
    yield Case((3, 5, 4), uneven, torch.float32, momentum=None)
    yield Case((3, 5, 4), uneven, torch.float32, tracks=False)
    yield Case((3, 5, 4), uneven, torch.float64, mean=1000.0)
    yield Case((3, 5, 4), uneven, torch.float32, is_channels_last=True)
    yield Case((3, 2, 4, 5), uneven, torch.float32, is_channels_last=True)


def results(layer: nn.Module, x: Tensor, gradient: Tensor) -> list[Tensor]:
    """Return the output, the gradients of input and parameters, and the buffers of the second of two equal steps."""
    for _ in range(2):
        x = x.detach().requires_grad_()
        layer.zero_grad()
        output = layer(x)
        output.backward(gradient)
    assert x.grad is not None
    of_parameters = [parameter.grad for parameter in layer.parameters() if parameter.grad is not None]
    return [output.detach(), x.grad, *of_parameters, *layer.buffers()]


def in_process(case: Case, rank: int, world_size: int) -> list[Tensor]:
    inputs, gradients = case.batch(world_size)
    layer = sync_batch_norms(case.layer())
    x = inputs[rank]
    if case.is_channels_last:
        x = x.contiguous(memory_format=LAYOUTS[x.ndim])
    output, of_input, *others = results(layer, x, gradients[rank])
    if case.is_channels_last:
        assert output.is_contiguous(memory_format=LAYOUTS[x.ndim])
    num_parameters = len(list(layer.parameters()))
    for gradient in others[:num_parameters]:
        dist.all_reduce(gradient)  # DistributedDataParallel averages them
    return [output, of_input, *others]


def check_gradient_with_finite_differences(rank: int, world_size: int) -> None:
    """Compare the gradient of one number of the last process, which moves the outputs of all, with a difference."""
    case = Case((3, 2, 1), ROWS["uneven"], torch.float64)
    inputs, gradients = case.batch(world_size)
    layer = sync_batch_norms(case.layer())
    x = inputs[rank].requires_grad_()
    layer(x).backward(gradients[rank])
    sums = []
    for shift in (1e-5, -1e-5):
        moved = x.detach().clone()
        if rank == world_size - 1:
            moved[0, 1, 0, 0] += shift
        total = (layer(moved) * gradients[rank]).sum().detach()
        dist.all_reduce(total)
        sums.append(total)
    if rank == world_size - 1:
        assert x.grad is not None
        torch.testing.assert_close(x.grad[0, 1, 0, 0], (sums[0] - sums[1]) / 2e-5, rtol=1e-7, atol=1e-9)


def check_mixed_precision(rank: int) -> None:
    """Check that statistics are in float32 for 16-bit inputs, and that layers without gradients take part."""
    layer = sync_batch_norms(nn.BatchNorm2d(2)).requires_grad_(False)
    x = (torch.arange(64.0).reshape(4, 2, 2, 4) + 1000 + rank).bfloat16()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = layer(x)
    assert output.dtype == torch.bfloat16
    mean = x.float().mean((0, 2, 3))
    dist.all_reduce(mean)
    torch.testing.assert_close(layer.running_mean, 0.1 * mean / dist.get_world_size(), rtol=1e-6, atol=0)
    layer.eval()
    if rank == 0:  # nothing is exchanged
        layer(x.float())


def check_checkpointing(rank: int, world_size: int) -> None:
    """Check that computing blocks again for the backward pass changes neither gradients nor statistics."""
    torch.manual_seed(3)
    blocks = [nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU()) for _ in range(3)]
    plain = sync_batch_norms(nn.Sequential(*blocks))
    again = copy.deepcopy(plain)
    x = torch.randn(world_size, 5, 4)[rank]
    plain(x).square().sum().backward()
    with checkpointed(again):
        again(x).square().sum().backward()
    for parameter, reference in zip(again.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, reference.grad)
    torch.testing.assert_close(again.state_dict(), plain.state_dict())


def check_single_value(rank: int) -> None:
    layer = sync_batch_norms(nn.BatchNorm1d(2))
    with pytest.raises(ValueError, match="more than 1 value per channel over all processes"):
        layer(torch.zeros(1 if rank == 0 else 0, 2))


def run_process(rank: int, world_size: int) -> list[list[Tensor]]:
    check_gradient_with_finite_differences(rank, world_size)
    check_mixed_precision(rank)
    check_checkpointing(rank, world_size)
    check_single_value(rank)
    return [in_process(case, rank, world_size) for case in cases()]


def test_several_processes_equal_batch_norm_over_the_global_batch(tmp_path: Path) -> None:
    groups = run_in_process_groups(__file__, tmp_path)
    for (world_size, ranks), (number, case) in product(groups.items(), enumerate(cases())):
        inputs, gradients = case.batch(world_size)
        expected = results(case.layer(), torch.cat(inputs), torch.cat(gradients))
        every = [each[number] for each in ranks]
        actual = [torch.cat([each[0] for each in every]), torch.cat([each[1] for each in every]), *every[-1][2:]]
        tolerance = 1e-6 if case.dtype == torch.float32 else 1e-11
        for tensor, reference in zip(actual, expected, strict=True):
            scale = reference.abs().max().clamp_min(1.0) if reference.is_floating_point() else 1
            message = f"{case}, {world_size} processes"
            torch.testing.assert_close(tensor / scale, reference / scale, rtol=0, atol=tolerance, msg=message)


def test_only_plain_batch_norms_are_converted() -> None:
    norms = [nn.BatchNorm1d(2), nn.BatchNorm2d(2), nn.BatchNorm3d(2), SplitBatchNorm(2, num_splits=2)]
    network = nn.ModuleDict({"own": norms[3], "nested": nn.Sequential(norms[0], nn.ModuleList([norms[1], norms[2]]))})
    before = copy.deepcopy(network.state_dict())
    parameters = list(network.parameters())
    assert sync_batch_norms(network) is network
    assert [type(norm) for norm in norms] == [SyncBatchNorm] * 3 + [SplitBatchNorm]
    assert [id(parameter) for parameter in network.parameters()] == [id(parameter) for parameter in parameters]
    network.load_state_dict(before, strict=True)


def test_a_single_process_computes_what_batch_norm_does() -> None:
    case = Case((3, 5, 4), [4], torch.float32)
    inputs, gradients = case.batch(1)
    synchronized = results(sync_batch_norms(case.layer()), inputs[0], gradients[0])
    for tensor, reference in zip(synchronized, results(case.layer(), inputs[0], gradients[0]), strict=True):
        assert torch.equal(tensor, reference)
