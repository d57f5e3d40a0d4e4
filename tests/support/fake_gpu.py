"""Fake CUDA tensors: find, on a machine without a GPU, where the host would wait for it, and count what is launched.

`FakeTensorMode` gives tensors with a device and a shape, but no values. `FakeGPU` sees every operator on them, and
knows which operators read a value or a shape back, copy between devices, or have no kernel for a dtype. A value that is
read back is made up, so the run goes on and all waits are found, not the first alone. Tensors on the CPU are real.

Importing this module raises ImportError where torch lacks the internals it needs.
"""

import ctypes
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from fake_backward import run_backward
from fake_results import result_of
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from eztorch_sce.planning.launches import launches_a_kernel

aten = torch.ops.aten
CUDA = torch.device("cuda", 0)

# By name of the operator, whatever its overload.
READS_A_VALUE = {"_local_scalar_dense", "equal", "allclose", "is_nonzero", "multinomial"}
READS_A_SHAPE = {"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount"}
READS_A_STATUS = {  # of cuSOLVER, to raise an error for a singular matrix
    *("_linalg_check_errors", "_linalg_eigh", "_linalg_eigvals", "linalg_eig", "_linalg_svd", "linalg_lstsq"),
}
INDEXES = {"index", "_unsafe_index", "index_put", "index_put_", "_unsafe_index_put", "_index_put_impl_"}
# Without a CUDA kernel for float16 and bfloat16, by the database of operators that torch tests itself with.
NOT_FOR_16_BITS = {
    *(
        "_cdist_forward",
        "_cdist_backward",
        "_pdist_forward",
        "_ctc_loss",
        "angle",
        "polar",
        "histc",
        "igamma",
        "igammac",
    ),
    *("cholesky_inverse", "cholesky_solve", "_cholesky_solve_helper", "linalg_cholesky_ex", "geqrf", "ormqr"),
    *("_linalg_det", "linalg_eig", "_linalg_eigh", "_linalg_eigvals", "linalg_householder_product", "linalg_inv_ex"),
    *("linalg_ldl_factor_ex", "linalg_ldl_solve", "linalg_lstsq", "linalg_lu", "linalg_lu_factor_ex"),
    *("linalg_lu_solve", "linalg_qr", "_linalg_slogdet", "_linalg_solve_ex", "linalg_solve_triangular", "_linalg_svd"),
    *("lu_unpack", "triangular_solve", "special_zeta", "special_erfcx", "special_ndtri", "special_log_ndtr"),
    *("special_airy_ai", "special_bessel_j0", "special_bessel_j1", "special_bessel_y0", "special_bessel_y1"),
}
NOT_FOR_INTEGERS = {"mm", "bmm", "addmm", "baddbmm", "mv", "addmv", "dot", "convolution"}  # they go to cuBLAS and cuDNN
WITHOUT_RESULT = ("_fused_", "_amp_foreach_")  # operators in place, some of which have no rule for fake tensors
_SKIPPED_FILES = (str(Path(torch.__file__).parent), __file__, str(Path(__file__).with_name("fake_backward.py")), "<")


class FakeGPU(TorchDispatchMode):
    """Operators on fake CUDA tensors, counted. Each name of a wait, kernel or failure ends with the line it comes from.

    Attributes:
        waits: Operators that make the host wait for the device.
        kernels: Operators that launch kernels; a copy between devices counts as one.
        failures: Operators that have no CUDA kernel for the dtype of their input.
        collectives: Exchanges between processes, by name and device. Those of CPU tensors do not wait for the GPU.
        answers: What is read back from the device, by kind: "bool", "int" or "float".
    """

    def __init__(self, mode: FakeTensorMode, answers: dict[str, Any] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.mode = mode
        self.answers = {"bool": True, "float": 1.0, "int": 1} | (answers or {})
        self.waits: Counter[str] = Counter()
        self.kernels: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.collectives: Counter[str] = Counter()
        self._pinned: dict[int, Tensor] = {}  # by address; kept, so that no other storage takes it

    @property
    def num_waits(self) -> int:
        """Return how often the host waited."""
        return self.waits.total()

    @property
    def num_kernels(self) -> int:
        """Return how many operators were launched."""
        return self.kernels.total()

    def clear(self) -> None:
        """Set all counts to zero."""
        for counter in (self.waits, self.kernels, self.failures, self.collectives):
            counter.clear()

    def wait(self, why: str) -> None:
        """Count one wait, at the innermost line outside torch."""
        self.waits[f"{why} at {_place()}"] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:  # by far the most frequent
            return CUDA
        kwargs = dict(kwargs or {})
        leaves = [*_tensors_in(args), *_tensors_in(kwargs.values())]
        if func.namespace == "c10d":
            self.collectives[f"{func.overloadpacket.__name__.strip('_')} of {leaves[0].device.type}"] += 1
        is_on_device = any(isinstance(leaf, FakeTensor) for leaf in leaves)
        if not is_on_device and torch.device(kwargs.get("device") or "cpu").type == "cpu":
            return self._on_cpu(func, args, kwargs)
        if torch.is_inference_mode_enabled() and func.namespace == "aten":  # composite operators arrive whole there
            with self:
                made = func.decompose(*args, **kwargs)
            if made is not NotImplemented:
                return made
        for leaf in leaves:
            if isinstance(leaf, FakeTensor) and leaf.constant is not None:
                leaf.constant = None  # torch would fold it, with kernels that are not here
        return self._on_device(func, args, kwargs, leaves)

    def _on_cpu(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run an operator of CPU tensors for real; memory is pinned by name only, since that takes a GPU."""
        name = func.overloadpacket.__name__
        if name == "is_pinned":
            return _address(args[0]) in self._pinned
        is_pinned = name in ("pin_memory", "_pin_memory") or kwargs.pop("pin_memory", False)
        with unset_fake_temporarily():
            result = args[0].clone() if name in ("pin_memory", "_pin_memory") else func(*args, **kwargs)
        if is_pinned:
            self._pinned[_address(result)] = result
        return result

    def _on_device(self, func: Any, args: Any, kwargs: dict[str, Any], leaves: list[Tensor]) -> Any:
        name = func.overloadpacket.__name__
        if self._lacks_kernel(name, leaves):
            args, kwargs = tree_map_only(Tensor, lambda tensor: tensor.float(), (args, kwargs))  # so the run goes on
        if name in READS_A_VALUE or _reads_bounds(func, args):
            self.wait(name)
            if name not in ("multinomial", "normal", "histc"):
                return self._answer(name, leaves[0])
        if name in READS_A_SHAPE or (func is aten.repeat_interleave.Tensor and kwargs.get("output_size") is None):
            self.wait(name)
            return _of_unknown_size(name, args)
        if name in READS_A_STATUS:
            self.wait(f"{name} (reads the status)")
        if name in INDEXES and (mask := self._index_by_mask(args[0], args[1])) is not None:
            return args[0] if "put" in name else mask
        if name in ("_to_copy", "copy_") and (moved := self._moved(name, args, kwargs)) is not None:
            return moved
        if name.startswith(WITHOUT_RESULT):
            self._launch(name)
            return None
        result = result_of(func, args, kwargs, self.mode, CUDA)
        if launches_a_kernel(func):
            self._launch(name)
        return result

    def _launch(self, name: str) -> None:
        self.kernels[f"{name} at {_place()}"] += 1

    def _lacks_kernel(self, name: str, leaves: list[Tensor]) -> bool:
        """Return whether an operator has no CUDA kernel for the dtype of its input, and note it."""
        dtype = leaves[0].dtype if leaves else torch.float32
        is_integer = not dtype.is_floating_point and not dtype.is_complex
        lacks = name in NOT_FOR_16_BITS and dtype in (torch.bfloat16, torch.float16)
        lacks = lacks or (name in NOT_FOR_INTEGERS and is_integer)
        if lacks:
            self.failures[f"{name} has no kernel for {dtype} at {_place()}"] += 1
        return lacks

    def _answer(self, name: str, tensor: Tensor) -> Any:
        if name != "_local_scalar_dense" or tensor.dtype == torch.bool:
            return self.answers["bool"]
        return self.answers["float" if tensor.is_floating_point() else "int"]

    def _index_by_mask(self, tensor: Tensor, indices: list[Tensor | None]) -> Tensor | None:
        """Note waits of an index; return the made-up rows that a mask selects, or None without a mask."""
        for index in indices:
            if index is not None and index.dtype in (torch.bool, torch.uint8):
                self.wait("index by a mask")
                return torch.empty(3, *tensor.shape[index.ndim :], dtype=tensor.dtype, device=CUDA)
            if index is not None and not index.is_cuda and tensor.is_cuda:
                self.wait("index on the CPU, copied to the device")
        return None

    def _moved(self, name: str, args: Any, kwargs: dict[str, Any]) -> Tensor | None:
        """Note a copy between devices and return its result, or None if the operator is none."""
        is_cast = name == "_to_copy"
        source = args[0] if is_cast else args[1]
        target = torch.device(kwargs.get("device") or source.device) if is_cast else args[0].device
        if source.device.type == target.type:
            return None
        asynchronous = bool(kwargs.get("non_blocking") or (not is_cast and len(args) > 2 and args[2]))
        on_host = source if target.type == "cuda" else args[0]  # of a cast to the CPU, the source: never pinned
        if not asynchronous or (target.type == "cpu" and is_cast):
            self.wait(f"blocking copy from {source.device.type} to {target.type}")
        elif _address(on_host) not in self._pinned:
            self.wait(f"copy to {target.type} through memory that is not pinned")
        self._launch(f"copy to {target.type}")
        if target.type == "cuda":
            return args[0] if not is_cast else self._like(source, kwargs.get("dtype") or source.dtype)
        with unset_fake_temporarily():
            answer = self._answer("_local_scalar_dense", source)
            if not is_cast:
                return args[0].fill_(answer)  # type: ignore[no-any-return]
            return torch.full(source.shape, answer, dtype=kwargs.get("dtype") or source.dtype)

    def _like(self, source: Tensor, dtype: torch.dtype) -> Tensor:
        """Return a tensor on the device with the shape and strides of another."""
        meta = torch.empty_like(source, dtype=dtype, device="meta")
        return torch.empty_strided(meta.shape, meta.stride(), dtype=dtype, device=CUDA)


class _Event:
    """Event of a stream, which has always happened."""

    counts: FakeGPU

    def __init__(self, **settings: Any) -> None:
        pass

    def record(self, stream: object = None) -> None:
        pass

    def query(self) -> bool:
        return True

    def wait(self, stream: object = None) -> None:
        pass

    def synchronize(self) -> None:
        self.counts.wait("synchronize")


def _tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors among arguments, and in their lists."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors_in(value)


def _reads_bounds(func: Any, args: Any) -> bool:
    """Return whether an operator checks values on the host: a deviation that is a tensor, or the range of histc."""
    if func in (aten.normal.Tensor_Tensor, aten.normal.float_Tensor):
        return True
    return func is aten.histc.default and args[2:4] in ((), (0, 0))


def _of_unknown_size(name: str, args: Any) -> Any:
    """Return a made-up result, of three rows, of an operator whose result's size depends on values."""
    rows = torch.empty((3, args[0].ndim) if name == "nonzero" else (3,), dtype=torch.long, device=CUDA)
    if name == "masked_select":
        return rows.to(args[0].dtype)
    if "unique" in name:
        values = torch.empty(3, *(args[0].shape[1:] if name == "unique_dim" else ()), dtype=args[0].dtype, device=CUDA)
        return values, torch.empty(args[0].shape, dtype=torch.long, device=CUDA), rows
    return rows


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _place() -> str:
    """Return the file and line of the innermost call from outside torch."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_SKIPPED_FILES):
        frame = frame.f_back
    return f"{'/'.join(frame.f_code.co_filename.rsplit('/', 3)[-3:])}:{frame.f_lineno}"


def _register_cuda_guard() -> None:
    """Let a CPU build of torch index tensors on "cuda" as a CUDA build without a GPU does: by an idle guard.

    `torch._C._ensureCUDADeviceGuardSet`, which FakeTensorMode calls, replaces a guard without devices. A CPU build has
    no guard to replace.
    """
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
        guards = (ctypes.c_void_p * 21).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
    except (OSError, ValueError) as error:
        raise ImportError(f"no device guards in this torch: {error}") from error
    cuda, meta = 1, 14  # c10::DeviceType
    if not guards[cuda]:
        guards[cuda] = guards[meta]
    torch._C._ensureCUDADeviceGuardSet()


@contextmanager
def fake_gpu(answers: dict[str, Any] | None = None) -> Iterator[FakeGPU]:
    """Yield the counts; inside, `CUDA` is a device without values, and autocast and GradScaler accept it.

    Args:
        answers: What is read back from the device, by kind: "bool" (True), "int" (1) or "float" (1.0).
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    counts = FakeGPU(mode, answers)

    def tolist(tensor: Tensor) -> Any:
        if tensor.is_cuda:
            counts.wait("tolist")
        return [0] * len(tensor) if tensor.ndim else 0

    with ExitStack() as stack:
        stack.enter_context(patch.object(FakeTensor, "tolist", tolist))
        stack.enter_context(patch.object(torch.Tensor, "backward", run_backward))
        stack.enter_context(patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False))
        stack.enter_context(patch("torch.cuda.is_bf16_supported", lambda *args: True))
        stack.enter_context(patch("torch.cuda.Event", type("Event", (_Event,), {"counts": counts})))
        stack.enter_context(patch("torch.cuda.synchronize", lambda *args: counts.wait("synchronize")))
        stack.enter_context(mode)
        stack.enter_context(counts)
        yield counts


def autocast(dtype: torch.dtype | None) -> torch.autocast:
    """Return autocast on the fake GPU to a dtype; None for float32, without autocast. To be entered in `fake_gpu`."""
    return torch.autocast("cuda", dtype or torch.float16, enabled=dtype is not None)


def on_fake_gpu(module: nn.Module) -> nn.Module:
    """Return a module, built on any device, on the fake GPU without its values; to be called in `fake_gpu`."""
    return module.to_empty(device=CUDA)


@contextmanager
def fake_processes(world_size: int = 8) -> Iterator[None]:
    """Make this process rank 0 of several that do not exist: each exchange returns what this process sent.

    Groups made inside are fake too, whatever their backend.
    """
    new_group = dist.new_group

    def fake_group(*args: Any, **kwargs: Any) -> Any:
        return new_group(*args, **(kwargs | {"backend": "fake"}))

    def all_gather_object(values: list[Any], value: Any, group: Any = None) -> None:
        dist.all_reduce(torch.zeros(1), group=group)  # what the real one exchanges would become a fake tensor
        values[:] = [value] * len(values)

    dist.init_process_group("fake", rank=0, world_size=world_size, store=FakeStore())
    try:
        with patch.object(dist, "new_group", fake_group), patch.object(dist, "all_gather_object", all_gather_object):
            yield
    finally:
        dist.destroy_process_group()


_register_cuda_guard()
