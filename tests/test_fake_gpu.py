"""Tests of the fake GPU: planted waits are found, harmless operators are not flagged, and gradients are real."""

from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

pytest.importorskip("fake_gpu", exc_type=ImportError)
from fake_backward import run_backward
from fake_gpu import CUDA, autocast, fake_gpu, fake_processes, on_fake_gpu

WAITS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x.sum()),
    "int": lambda x: int(x.argmax()),
    "bool": lambda x: bool(x.isfinite().all()),
    "if": lambda x: 1 if x.sum() > 0 else 0,
    "tolist": lambda x: x.tolist(),
    "list of scalars": lambda x: [float(value) for value in x[0]],
    "cpu": lambda x: x.cpu(),
    "to cpu": lambda x: x.to("cpu", non_blocking=True),
    "copy_ to the CPU": lambda x: torch.empty(4, 4).copy_(x),
    "copy_ to the CPU, not pinned": lambda x: torch.empty(4, 4).copy_(x, non_blocking=True),
    "event": lambda x: torch.cuda.Event().synchronize(),
    "synchronize": lambda x: torch.cuda.synchronize(),
    "tensor(list, device=)": lambda x: torch.tensor([1.0, 2.0], device=x.device),
    "new_tensor": lambda x: x.new_tensor([1.0, 2.0]),
    "as_tensor(list, device=)": lambda x: torch.as_tensor([1, 2], device=x.device),
    "to(device)": lambda x: torch.ones(3).to(x.device),
    "to(device) of pinned memory": lambda x: torch.ones(3).pin_memory().to(x.device),
    "to(device, non_blocking) of memory that is not pinned": lambda x: torch.ones(3).to(x.device, non_blocking=True),
    "copy_ to the device": lambda x: x.copy_(torch.ones(4, 4)),
    "nonzero": lambda x: x.nonzero(),
    "where of a condition": lambda x: torch.where(x > 0),
    "index by a mask": lambda x: x[x > 0],
    "rows by a mask": lambda x: x[x[:, 0] > 0],
    "rows by a mask, set": lambda x: x.__setitem__(x[:, 0] > 0, x[:3]),
    "index by a list": lambda x: x[[0, 1]],
    "index by a CPU tensor": lambda x: x[torch.tensor([0, 1])],
    "masked_select": lambda x: x.masked_select(x > 0),
    "unique": lambda x: x.unique(),
    "unique_consecutive": lambda x: x.unique_consecutive(),
    "bincount": lambda x: torch.bincount(torch.zeros(3, dtype=torch.long, device=x.device)),
    "one_hot of unknown width": lambda x: nn.functional.one_hot(x.argmax(dim=1)),
    "repeat_interleave by a tensor": lambda x: x.repeat_interleave(x.argmax(dim=1), dim=0),
    "equal": lambda x: torch.equal(x, x),
    "allclose": lambda x: torch.allclose(x, x),
    "eigvalsh": lambda x: torch.linalg.eigvalsh(x),
    "svd": lambda x: torch.linalg.svd(x),
    "inv": lambda x: torch.linalg.inv(x),
    "cholesky": lambda x: torch.linalg.cholesky(x),
    "multinomial": lambda x: torch.multinomial(x, 1),
    "normal of deviations": lambda x: torch.normal(x, x),
    "inference mode": lambda x: torch.inference_mode()(lambda: float(x.mean()))(),
}
HARMLESS: dict[str, Callable[[Tensor], object]] = {
    "pinned": lambda x: torch.ones(3).pin_memory().to(x.device, non_blocking=True),
    "made pinned": lambda x: torch.ones(3, pin_memory=True).to(x.device, non_blocking=True),
    "part of pinned memory": lambda x: torch.ones(3).pin_memory()[1:].to(x.device, non_blocking=True),
    "copy_ to pinned memory": lambda x: torch.empty(4, 4, pin_memory=True).copy_(x, non_blocking=True),
    "query of an event": lambda x: torch.cuda.Event().query(),
    "index": lambda x: x[torch.arange(2, device=x.device)],
    "index, set": lambda x: x.__setitem__(torch.arange(2, device=x.device), 0.0),
    "index by slice and integer": lambda x: x[1:, 2].add_(1),
    "where": lambda x: torch.where(x > 0, x, 0.0),
    "masked_fill": lambda x: x.masked_fill(x > 0, 0.0),
    "masked_fill by a CPU scalar": lambda x: x.masked_fill(x > 0, torch.tensor(2.0)),
    "product with a CPU scalar": lambda x: x * torch.tensor(2.0),
    "full": lambda x: torch.full((3,), 2.0, device=x.device),
    "new_full": lambda x: x.new_full((3,), 2.0),
    "randperm": lambda x: torch.randperm(5, device=x.device),
    "one_hot": lambda x: nn.functional.one_hot(x.argmax(dim=1), 4),
    "repeat_interleave": lambda x: x.repeat_interleave(2, dim=0),
    "shape": lambda x: x.reshape(len(x), -1).shape[1],
    "arithmetic on the CPU": lambda x: float(torch.ones(3)[torch.tensor([True, False, True])].sum()),
    "cross entropy": lambda x: nn.functional.cross_entropy(x, x.argmax(dim=1)),
    "gradient clipping": lambda x: nn.utils.clip_grad_norm_([nn.Parameter(x)], 1.0),
    "inference mode": lambda x: torch.inference_mode()(lambda: x.mean() + nn.functional.linear(x, x))(),
}
NO_KERNEL: dict[str, Callable[[Tensor], object]] = {
    "eigvalsh": lambda x: torch.linalg.eigvalsh(x),
    "svd": lambda x: torch.linalg.svdvals(x),
    "qr": lambda x: torch.linalg.qr(x),
    "cholesky": lambda x: torch.linalg.cholesky(x),
    "solve": lambda x: torch.linalg.solve(x, x),
    "inv": lambda x: torch.linalg.inv(x),
    "slogdet": lambda x: torch.linalg.slogdet(x),
    "cdist": lambda x: torch.cdist(x, x),
    "pdist": lambda x: nn.functional.pdist(x),
    "matrix product of integers": lambda x: x.long() @ x.long(),
}


@pytest.mark.parametrize("name", WAITS)
def test_a_wait_is_found(name: str) -> None:
    with fake_gpu() as seen:
        WAITS[name](torch.empty(4, 4, device=CUDA))
    assert seen.num_waits
    assert all("test_fake_gpu.py" in where for where in seen.waits), "the place is that of the line outside torch"


@pytest.mark.parametrize("name", HARMLESS)
def test_an_operator_that_does_not_wait_is_not_flagged(name: str) -> None:
    with fake_gpu() as seen:
        HARMLESS[name](torch.empty(4, 4, device=CUDA))
    assert not seen.waits
    assert not seen.failures


@pytest.mark.parametrize("name", NO_KERNEL)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_operator_without_a_kernel_for_the_dtype_is_found(name: str, dtype: torch.dtype) -> None:
    with fake_gpu() as seen:
        NO_KERNEL[name](torch.empty(4, 4, device=CUDA, dtype=dtype))
    assert seen.failures


def test_all_waits_of_a_run_are_found_and_each_kernel_is_counted_where_it_is_launched() -> None:
    with fake_gpu() as seen:
        x = torch.empty(4, 4, device=CUDA)
        x.add(1).mul(2).t().contiguous()
        assert sorted(name.split(" at ")[0] for name in seen.kernels) == ["add", "clone", "mul"]
        _ = bool(x.any()), float(x.sum()), x.tolist()
    assert seen.num_waits == 3


def test_autocast_changes_the_dtype_of_products_as_on_a_gpu() -> None:
    with fake_gpu():
        x = torch.empty(4, 4, device=CUDA)
        for dtype in (torch.bfloat16, torch.float16):
            with autocast(dtype):
                assert (x @ x).dtype == dtype
        with autocast(None):
            assert (x @ x).dtype == torch.float32


def test_the_backward_pass_fills_every_gradient_and_its_waits_are_found() -> None:
    class Waiting(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: object, *gradients: Tensor) -> Tensor:
            return gradients[0] * float(gradients[0].sum())

    with fake_gpu() as seen:
        network = on_fake_gpu(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2)))
        with autocast(torch.bfloat16):
            out = network(torch.empty(5, 3, 4, 4, device=CUDA))
        out.float().logsumexp(dim=1).mean().backward()
        assert not seen.waits
        for parameter in network.parameters():
            assert parameter.grad is not None
            assert (parameter.grad.shape, parameter.grad.dtype) == (parameter.shape, parameter.dtype)
        Waiting.apply(network(torch.empty(5, 3, 4, 4, device=CUDA))).sum().backward()  # type: ignore[no-untyped-call]
    assert seen.num_waits == 1


def test_the_backward_pass_gives_the_gradients_of_autograd() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(16, 2)
    )
    x = torch.randn(6, 3, 4, 4)

    def loss() -> Tensor:
        first, second = network(x).chunk(2)
        scores: Tensor = (first * second + first.sum(dim=0)).logsumexp(dim=1) + first.unbind(dim=1)[0]
        return scores.mean()

    loss().backward()
    expected = [parameter.grad for parameter in network.parameters()]
    network.zero_grad()
    run_backward(loss())
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=0, atol=0)


def test_exchanges_between_fake_processes_are_counted_by_device() -> None:
    with fake_processes(8), fake_gpu() as seen:
        assert (dist.get_rank(), dist.get_world_size()) == (0, 8)
        dist.all_reduce(torch.empty(3, device=CUDA))
        counts, own = [torch.zeros(1) for _ in range(8)], torch.full((1,), 5.0)
        dist.all_gather(counts, own)
        assert [int(count) for count in counts] == [5] * 8
        assert dist.get_world_size(dist.new_group(backend="gloo")) == 8
    assert not dist.is_initialized()
    assert seen.collectives == {"allreduce of cuda": 1, "allgather of cpu": 1}
    assert not seen.waits
