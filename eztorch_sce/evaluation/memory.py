"""How much is computed at once: chunks of an evaluation from the memory of its device."""

from collections.abc import Callable

import torch
from jaxtyping import Shaped
from torch import Tensor

from eztorch_sce.progress import print_above
from eztorch_sce.transfers import to_device
from eztorch_sce.types import Features, StoredRows

_ON_CPU = 2**30  # bytes; with inputs of 4 MB at once, networks are fastest on a CPU
_STORED_CHUNK = 16384  # rows read at once from files
_NETWORK_SHARE = 256  # of the memory for the input: activations take 16 to 64 times the bytes of a float32 input


def available_bytes(device: torch.device) -> int:
    """Return the bytes that a computation on a device can take, beside what it holds now; 1 GB on a CPU.

    The host does not wait for the device.
    """
    if device.type != "cuda":
        return _ON_CPU
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def on_device(rows: Features, device: torch.device) -> Features:
    """Return rows on a device if they take at most half of its memory; otherwise as they are, to be sent in chunks."""
    if device.type == "cpu" or rows.nbytes > available_bytes(device) // 2:
        return rows
    if isinstance(rows, Tensor):
        return rows.to(device)
    there = torch.empty(rows.shape, device=device)
    for start in range(0, len(rows), _STORED_CHUNK):
        there[start : start + _STORED_CHUNK] = rows[start : start + _STORED_CHUNK]
    return there


def take(
    rows: Shaped[Tensor, "N ..."] | StoredRows,
    index: Tensor | slice,
    index_on_device: Tensor | slice,
    device: torch.device,
) -> Shaped[Tensor, "n ..."]:
    """Return some of the rows on a device, wherever `on_device` left them. The host does not wait for a GPU.

    Args:
        rows: The rows.
        index: The indices of those to return, on the CPU, or a slice.
        index_on_device: The same on the device.
        device: The device.
    """
    if isinstance(rows, StoredRows) or rows.device.type != device.type:
        return to_device(rows[index], device)
    return rows[index_on_device]


class InChunks:
    """Apply a function to the rows of a tensor in chunks that fit in the memory of its device.

    A chunk holds the rows whose float32 values take 1/256 of the memory that is free at the first call. If that is too
    much for the network, the chunk is halved until it fits, with a note.

    Args:
        function: Maps rows (n, ...) to rows (n, ...), each independent of the others.

    Attributes:
        rows: Rows at once; 0 before the first call.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function, self.rows = function, 0

    def __call__(self, inputs: Shaped[Tensor, "N ..."]) -> Shaped[Tensor, "N ..."]:
        """Return the result for all rows."""
        if not self.rows:
            self.rows = max(1, available_bytes(inputs.device) // (_NETWORK_SHARE * 4 * inputs[0].numel()))
        while True:
            num_chunks = -(-len(inputs) // self.rows)
            try:
                return torch.cat([self.function(chunk) for chunk in inputs.tensor_split(num_chunks)])
            except torch.OutOfMemoryError:
                if self.rows == 1:
                    raise
            self._halve(len(inputs))

    def _halve(self, num_rows: int) -> None:
        """Take half as many rows at once as before; the memory of the failed attempt is free by now."""
        previous = min(self.rows, num_rows)
        self.rows = max(1, previous // 2)
        torch.cuda.empty_cache()  # does nothing on a CPU
        print_above(f"note: {previous} clips at once do not fit in memory; continuing with {self.rows}")


class Rows:
    """Rows that are computed batch by batch: kept on their device, and moved to the host in few large pieces.

    Reading each batch back would make the host wait for the device each time.

    Args:
        device: The device of the rows.
    """

    def __init__(self, device: torch.device) -> None:
        self._limit, self._bytes = available_bytes(device) // 8, 0
        self._on_device: list[Tensor] = []
        self._on_host: list[Tensor] = []

    def append(self, rows: Shaped[Tensor, "n ..."]) -> None:
        """Add the rows of a batch."""
        self._on_device.append(rows)
        self._bytes += rows.nbytes
        if self._bytes > self._limit:
            self._move()

    def parts(self) -> list[Tensor]:
        """Return the rows so far in a few parts on the host; no part if there are no rows."""
        self._move()
        return self._on_host

    def _move(self) -> None:
        if self._on_device:
            self._on_host.append(torch.cat(self._on_device).cpu())
        self._on_device, self._bytes = [], 0
