"""Collectives across processes. Without a process group, every function treats this process as the only one."""

import atexit
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import wraps
from subprocess import Popen
from typing import Any, NamedTuple, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]  # documented, not in __all__

from eztorch_sce import signals, together
from eztorch_sce.errors import ConfigError
from eztorch_sce.launch import Launch, find_launch, local_rank, process_number
from eztorch_sce.transfers import to_device
from eztorch_sce.types import Failure

P = ParamSpec("P")
T = TypeVar("T")

_LONG, _SHORT = timedelta(hours=1), timedelta(seconds=15)  # waits for processes that work, and for those that failed
_UNSURE = timedelta(seconds=30)  # wait for processes of which only the variables of a SLURM job tell
_CPU = torch.device("cpu")
_GATHERED_BYTES = 2**30  # of results that a device gathers at once
_host_groups: tuple[dist.ProcessGroup, dist.ProcessGroup] | None = None  # the default group, and that of CPU tensors
_store: Store | None = None  # through which the processes that were launched together meet


def join() -> None:
    """Form the process group of the processes that torchrun or srun started, unless there is one.

    From here to the end of the command, the processes watch each other, see `together`. Processes that Lightning starts
    repeat the commands of the first, alone, up to the training that started them.

    Raises:
        ConfigError: If the launcher is not supported, or the other processes do not come.
    """
    launch = find_launch()
    if dist.is_initialized():
        if world_size() > 1:
            together.connect(_session_store(dist.distributed_c10d._get_default_store()), rank(), world_size())
        return
    if launch is not None and launch.world_size > 1 and launch.launcher != "Lightning":
        form_group(process_number())


def ends_together(command: Callable[P, T]) -> Callable[P, T]:
    """Return a command that runs in all processes that were launched together, and ends all if it fails in one."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with signals.watched(), together.together():
            signals.poll()
            join()
            return command(*args, **kwargs)

    return run


def form_group(number: int, started: Sequence["Popen[bytes]"] = ()) -> None:
    """Form the process group of the processes that were launched together.

    Args:
        number: Number of this process.
        started: Processes that this one has started.
    """
    launch = find_launch()
    assert launch is not None
    if launch.launcher == "mpirun":
        raise ConfigError([f"{launch.started}, which is not supported: use torchrun or srun instead"])
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank())
    is_sure = launch.launcher != "srun" or _is_step(os.environ)
    timeout = _LONG if is_sure else _UNSURE
    if number > 0 and not _wait_for_store(launch, timeout.total_seconds(), heed_signals=True):
        raise _absent(launch, timeout)
    store = _meet(launch, number, timeout)
    together.connect(_session_store(store), number, launch.world_size, started)
    if not together.wait_for_all("joined", timeout.total_seconds()):
        together.disconnect()
        raise _absent(launch, timeout)
    atexit.register(leave)  # a group that is left open may abort the process at its end
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(
        backend,
        store=PrefixStore(f"group {together.number_of_command()}", store),
        rank=number,
        world_size=launch.world_size,
    )


def reach_store() -> Store | None:
    """Return the store of the processes launched together with this one, or None if they do not come or exist."""
    launch = find_launch()
    assert launch is not None
    if dist.is_initialized():
        return _session_store(dist.distributed_c10d._get_default_store())
    if launch.launcher == "srun" and not _is_step(os.environ):
        return None
    number, patience_s = process_number(), 1.0 if signals.requested() else _SHORT.total_seconds()
    if number > 0 and not _wait_for_store(launch, patience_s, heed_signals=False):
        return None
    return _session_store(_meet(launch, number, _SHORT))


def _session_store(store: Store) -> Store:
    """Return the part of a store through which the processes of the current command watch each other.

    It has a connection of its own, since a wait on another one would keep the watching thread waiting.
    """
    own = store.clone() if hasattr(store, "clone") else store
    own.set_timeout(_SHORT)
    return PrefixStore(f"eztorch_sce {together.number_of_command()}", own)


def leave() -> None:
    """Leave the process groups, so that nobody waits for this process in them."""
    global _host_groups
    _host_groups = None  # connections close with the last reference
    if dist.is_initialized():
        dist.destroy_process_group()


def _meet(launch: Launch, number: int, timeout: timedelta) -> Store:
    """Return the store through which the processes that were launched together meet.

    Raises:
        ConfigError: If the process that holds it does not come, as in a batch script that starts one without srun.
    """
    global _store
    if _store is not None:
        return _store
    host, port = _meeting_point(launch, os.environ)
    has_store = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # torchrun keeps it, across restarts too
    try:
        store = TCPStore(host, port, None, number == 0 and not has_store, timeout, wait_for_workers=False)
    except dist.DistError:
        raise _absent(launch, timeout) from None
    _store = PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    return _store


def _wait_for_store(launch: Launch, at_most_s: float, heed_signals: bool) -> bool:
    """Wait until the store accepts connections, and return whether it does. A TCPStore waits as well, deaf to signals.

    With `heed_signals`, a signal that asks to end raises Stopped.
    """
    place, stop = _meeting_point(launch, os.environ), time.monotonic() + at_most_s
    while _store is None:
        if heed_signals:
            signals.poll()
        with suppress(OSError), socket.create_connection(place, timeout=5):
            break
        if time.monotonic() > stop:
            return False
        time.sleep(0.1)
    return True


def _absent(launch: Launch, timeout: timedelta) -> ConfigError:
    host, port = _meeting_point(launch, os.environ)
    return ConfigError(
        [
            f"{launch.variables}, but the {launch.world_size} processes did not all come to {host}:{port} within "
            f"{timeout.seconds} s: start them with {launch.launcher}, or unset {launch.variables.split('=')[0]} to "
            "run this one alone"
        ]
    )


def _is_step(environ: Mapping[str, str]) -> bool:
    """Return whether srun started this process. A batch script has SLURM_NTASKS, too, but is a single process."""
    return "SLURM_STEP_ID" in environ or "SLURM_STEPID" in environ


def _meeting_point(launch: Launch, environ: Mapping[str, str]) -> tuple[str, int]:
    """Return the host and the port at which the processes meet: in SLURM, different ones for each job.

    >>> job = {"SLURM_NODELIST": "gpu[07-08],cpu1", "SLURM_JOB_ID": "123456"}
    >>> _meeting_point(Launch("srun", 2, 1, "SLURM_NTASKS=2"), job)
    ('gpu07', 18456)
    """
    host, port = environ.get("MASTER_ADDR"), environ.get("MASTER_PORT")
    if launch.launcher == "srun":
        nodes = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_NODELIST", "127.0.0.1")
        host = host or re.sub(r"\[(\w+)[^]]*\]", r"\1", nodes).split(",")[0]
        port = port or str(15000 + int(environ.get("SLURM_JOB_ID", "0")[-4:]))
    if not host or not port or (launch.launcher not in ("srun", "Lightning") and "RANK" not in environ):
        names = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in environ]
        missing = " and ".join(names)
        raise ConfigError([f"{launch.variables} is set, but {missing} not: start the processes with torchrun"])
    return host, int(port)


def decide_together(decide: Callable[[], str]) -> str:
    """Return what `decide` returns in the first process, once every process has come here.

    Raises:
        ConfigError: In every process, if `decide` raises one.
    """
    all_objects(None)  # every process has come
    answer, error = "", None
    if rank() == 0:
        try:
            answer = decide()
        except ConfigError as problem:
            error = problem
    raise_together(error)
    return from_first(answer)


def from_first(value: T) -> T:
    """Return the value of the first process, which must be picklable. Every process must call this."""
    values = [value]
    if world_size() > 1:
        dist.broadcast_object_list(values, src=0, group=host_group(), device=_CPU)
    return values[0]


def raise_together(error: Exception | None) -> None:
    """Raise, in every process, the error of the first process that has one. Every process must call this."""
    for each in all_objects(error):
        if each is not None:
            raise each


def all_objects(value: T) -> list[T]:
    """Return the values of all processes in rank order, which must be picklable. Every process must call this."""
    values: list[Any] = [value]
    if world_size() > 1:
        values = [None] * world_size()
        dist.all_gather_object(values, value, group=host_group())
    return values


def any_process(is_true: bool) -> bool:
    """Return whether something is true in a process, from one collective on the host. Every process must call this."""
    return any(number for (number,) in _all_numbers([int(is_true)]))


def local_device(accelerator: str) -> torch.device:
    """Return the device of this process: its GPU if there is one, unless `accelerator` is "cpu"."""
    if accelerator == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", local_rank())


def join_on(accelerator: str) -> torch.device:
    """Join the processes that were launched together, and return the device of this one."""
    join()
    device = local_device(accelerator)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def rank() -> int:
    """Return the rank of this process (0 when not distributed)."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the world size (1 when not distributed)."""
    return dist.get_world_size() if dist.is_initialized() else 1


def host_group() -> dist.ProcessGroup:
    """Return a group of all processes that exchanges CPU tensors, so that no exchange waits for a device.

    This is the default group if it can, otherwise a gloo group that is formed at the first call, which every process
    must make: NCCL alone exchanges tensors on GPUs only.
    """
    global _host_groups
    default = dist.group.WORLD
    assert default is not None
    if _host_groups is None or _host_groups[0] is not default:
        _host_groups = default, default if _takes_cpu_tensors(default) else dist.new_group(backend="gloo")
    return _host_groups[1]


def _takes_cpu_tensors(group: dist.ProcessGroup) -> bool:
    try:
        group._get_backend(_CPU)
    except RuntimeError:  # no backend for this type of device
        return False
    return True


class Exchange(NamedTuple):
    """What all processes tell each other at the start of a training step.

    Attributes:
        rows: Number of readable samples in the batch of each process, in rank order.
        failures: Unreadable files in the batches of all processes, in rank order, when a process first reports them.
        stop: Whether a process asked to stop training, see `request_stop`.
        seed: Seed of the draws that are the same in all processes in this step.
        save: Whether the first process asked for a checkpoint, see `request_save`.
        signal: The highest number of the signals that ask processes to end, see `signals.requested`; 0 if none does.
    """

    rows: list[int]
    failures: list[Failure]
    stop: bool
    seed: int
    save: bool = False
    signal: int = 0


def exchange(rows: int, failures: Sequence[Failure] = ()) -> Exchange:
    """Exchange the numbers of a training step, and the unreadable files if there are any. Every process must call this.

    The numbers travel in one collective on the host: no process waits for its device.

    Args:
        rows: Number of readable samples in the batch of this process.
        failures: Unreadable files in the batch of this process.
    """
    global _last, _save_requested
    news = [failure for failure in failures if failure.path not in _reported]
    _reported.update(failure.path for failure in news)
    seed = int(torch.randint(2**62, ())) if world_size() > 1 and rank() == 0 else 0
    table = _all_numbers([rows, len(news), int(_stop_requested), seed, int(_save_requested), signals.requested()])
    all_rows, all_counts, all_stops, seeds, all_saves, all_signals = map(list, zip(*table, strict=True))
    all_news = [failure for each in all_objects(news) for failure in each] if any(all_counts) else []
    _last = Exchange(all_rows, all_news, any(all_stops), seeds[0], bool(all_saves[0]), max(all_signals))
    _save_requested = False
    return _last


def last_exchange() -> Exchange:
    """Return the exchange of the current training step, or an empty one before the first."""
    return _last


def request_stop() -> None:
    """Ask all processes to stop training. They learn of it at their next exchange, hence all at the same step."""
    global _stop_requested
    _stop_requested = True


def stop_requested() -> bool:
    """Return whether this process has called `request_stop` in the current training."""
    return _stop_requested


def request_save() -> None:
    """Ask all processes to save a checkpoint after their next step. Only the first process is asked."""
    global _save_requested
    _save_requested = True


def begin_training() -> None:
    """Forget the requests, the reported files and the last exchange of an earlier training of this process."""
    global _stop_requested, _save_requested, _last
    _stop_requested, _save_requested, _last = False, False, _NOTHING
    _reported.clear()


@contextmanager
def rows_known() -> Iterator[None]:
    """Within this context, tensors given to `gather_with_offset` have the rows that the last `exchange` counted."""
    global _known
    before = _known
    _known = _Known(_last.rows, _last.seed) if _last.rows else None
    try:
        yield
    finally:
        _known = before


def gather_rows_of_some(parts: list[Tensor], device: torch.device) -> Tensor:
    """Return the rows of the parts of all processes on the CPU. A process may have no part, if it has no records.

    The device holds a limited piece of them at a time, whatever their number.

    Args:
        parts: Parts (N, ...) on the CPU; all processes agree in shape and type, except for N.
        device: The device of this process, on which they are gathered: NCCL is faster than gloo.
    """
    kinds = all_objects((parts[0].shape[1:], parts[0].dtype) if parts else None)
    shape, dtype = next(filter(None, kinds))
    rows = torch.cat([torch.empty(0, *shape, dtype=dtype), *parts])
    if world_size() == 1:
        return rows
    counts = [count for (count,) in _all_numbers([len(rows)])]
    at_once = max(1, _GATHERED_BYTES // (world_size() * max(1, shape.numel()) * dtype.itemsize))
    by_process: list[list[Tensor]] = [[] for _ in counts]
    for start in range(0, max(counts), at_once):
        sizes = [min(max(0, count - start), at_once) for count in counts]
        pieces = _gather(rows[start : start + at_once].to(device), sizes).cpu().split(sizes)
        for own, piece in zip(by_process, pieces, strict=True):
            own.append(piece)
    return torch.cat([piece for own in by_process for piece in own])


def gather_rows(rows: Tensor) -> Tensor:
    """Return the rows (N, ...) of all processes in rank order; N may differ between processes.

    Differentiable: the gradient of a row is the sum of its gradients in all processes.
    """
    if world_size() == 1:
        return rows
    return _gather(rows, [count for (count,) in _all_numbers([len(rows)])])


def gather_with_offset(rows: Tensor) -> tuple[Tensor, int]:
    """Return the result of `gather_rows`, and the index of the first row that comes from this process.

    Within `rows_known`, the processes do not exchange their numbers of rows.
    """
    if world_size() == 1:
        return rows, 0
    if _known is not None and len(rows) == _known.rows[rank()]:
        counts = _known.rows
    else:
        counts = [count for (count,) in _all_numbers([len(rows)])]
    return _gather(rows, counts), sum(counts[: rank()])


def same_permutation(count: int, device: torch.device) -> Tensor:
    """Return a random permutation (count,) that is the same in every process. The device is not waited for."""
    if world_size() == 1:
        return torch.randperm(count, device=device)
    if _known is not None:
        order = torch.randperm(count, generator=torch.Generator().manual_seed(_known.next_seed()))
    else:
        order = torch.randperm(count)
        dist.broadcast(order, src=0, group=host_group())
    return to_device(order, device)


class _Known:
    """What the exchange of the step in progress said.

    Args:
        rows: Number of rows of each process.
        seed: Seed of the next draw that all processes share.
    """

    def __init__(self, rows: list[int], seed: int) -> None:
        self.rows, self.seed = rows, seed

    def next_seed(self) -> int:
        """Return a seed that no earlier draw of this step had."""
        self.seed += 1
        return self.seed


def _gather(rows: Tensor, counts: list[int]) -> Tensor:
    gathered: Tensor = _GatherRows.apply(rows, counts)  # type: ignore[no-untyped-call]
    return gathered


# torch 2.13 renames the function, and warns of the earlier name.
_all_gather_into = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_NOTHING = Exchange([], [], False, 0)
_last = _NOTHING  # exchange of the current training step
_known: _Known | None = None  # within `rows_known`
_stop_requested = False  # by this process
_save_requested = False  # by this process
_reported: set[str] = set()  # unreadable files that this process has reported


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int]) -> Tensor:
        ctx.rows = slice(sum(counts[: rank()]), sum(counts[: rank() + 1]))
        if min(counts) == max(counts):
            gathered = rows.new_empty(sum(counts), *rows.shape[1:])
            _all_gather_into(gathered, rows.contiguous())
            return gathered
        padded = torch.cat([rows, rows.new_zeros(max(counts) - len(rows), *rows.shape[1:])]).contiguous()
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[ctx.rows], None


def _all_numbers(own: list[int]) -> list[list[int]]:
    """Return the numbers of each process, in rank order, from one collective on the host."""
    if world_size() == 1:
        return [own]
    sent = torch.tensor(own)
    received = [torch.zeros_like(sent) for _ in range(world_size())]
    dist.all_gather(received, sent, group=host_group())
    return [numbers.tolist() for numbers in received]
