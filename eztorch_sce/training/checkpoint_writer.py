"""Writing of checkpoints beside the training: a snapshot in host memory, and a thread that makes it durable."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eztorch_sce import tensor_file
from eztorch_sce.errors import TrainingError, disk_cure, first_line
from eztorch_sce.progress import print_above
from eztorch_sce.training.checkpoint_files import CHECKPOINTS, checkpoint_file, checkpoint_files, step_of
from eztorch_sce.training.config import RunConfig


class CheckpointWriter:
    """Write the checkpoints of a run, one at a time, and keep the newest.

    A checkpoint gets its name when it is durable and has been read back; the oldest goes only then.

    Args:
        run_dir: Run directory.
        config: How many checkpoints to keep, and what to do if one cannot be written.
        last_step: Step of the checkpoint that the training goes on from, or None if it starts.

    Attributes:
        last_step: Step of the newest intact checkpoint, or None if there is none.
    """

    def __init__(self, run_dir: Path, config: RunConfig, last_step: int | None = None) -> None:
        self.run_dir, self.config, self.last_step = run_dir, config, last_step
        self._buffers: dict[str, Tensor] = {}
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    @property
    def is_busy(self) -> bool:
        """Return whether a checkpoint is being written."""
        return self._thread is not None and self._thread.is_alive()

    def save(self, content: dict[str, Any], step: int, wait: bool) -> None:
        """Copy the state of a training, and write the copy.

        A write in progress is awaited first.

        Args:
            content: Tensors and plain values, in dictionaries and lists. Tensors on GPUs are copied in the order of the
                device's work; neither the host nor the device waits.
            step: Steps taken.
            wait: Wait until the checkpoint is durable, instead of returning after the copy.

        Raises:
            TrainingError: If a write failed and `run.on_save_error` is "stop".
        """
        self.finish()
        copy = Snapshot(self._buffers, content)
        self._thread = threading.Thread(target=self._write, args=(copy, step), name="checkpoint", daemon=True)
        self._thread.start()
        if wait:
            self.finish()

    def finish(self) -> None:
        """Wait until no checkpoint is being written.

        Raises:
            TrainingError: If the write failed and `run.on_save_error` is "stop".
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def check(self) -> None:
        """Report a write that has failed, once.

        Raises:
            TrainingError: If one has, and `run.on_save_error` is "stop".
        """
        error, self._error = self._error, None
        if error is None:
            return
        if not isinstance(error, OSError):
            raise error
        kept = "no checkpoint was written before" if self.last_step is None else f"that of step {self.last_step} stays"
        message = f"a checkpoint cannot be written to {self.run_dir / CHECKPOINTS} ({first_line(error)}); {kept}"
        if self.config.on_save_error == "stop":
            raise TrainingError(
                f"{message}. {disk_cure(error)}, and run the same command again to go on; with "
                "run.on_save_error=continue, training goes on without saving"
            )
        print_above(f"note: {message}; training goes on")

    def describe(self) -> str:
        """Return what the run would go on from if the process ended now, or an empty text if nothing is saved."""
        return "" if self.last_step is None else f"saved up to step {self.last_step}"

    def _write(self, copy: "Snapshot", step: int) -> None:
        try:
            content = copy.content()
            if _holds_nan(content.get("state_dict", {})):
                note = "the weights hold NaN, so that no checkpoint is written; the next step that is logged says why"
                return print_above(f"note: step {step}: {note}")
            file = checkpoint_file(self.run_dir, step)
            file.parent.mkdir(exist_ok=True)
            tensor_file.write(file, content)
            self.last_step = step
            self._remove_old(step)
        except Exception as error:
            self._error = error

    def _remove_old(self, step: int) -> None:
        """Remove all but the newest checkpoints up to a step. A later one is damaged, and left to be looked at."""
        files = [file for file in checkpoint_files(self.run_dir) if step_of(file) <= step]
        for file in files[self.config.keep :]:
            file.unlink(missing_ok=True)


def _holds_nan(state: Mapping[str, Tensor]) -> bool:
    """Return whether a tensor has NaN: a GPU may have taken steps that are not finite since the last one was read."""
    return any(bool(tensor.isnan().any()) for tensor in state.values() if tensor.is_floating_point())


class Snapshot:
    """A copy of a training state in host memory.

    Args:
        buffers: Memory of the tensors, by their place in the state; reused by later copies.
        state: The state.
    """

    def __init__(self, buffers: dict[str, Tensor], state: dict[str, Any]) -> None:
        self._buffers = buffers
        self._on_gpu = False
        self._content: dict[str, Any] = self._copied(state, "")
        self._is_complete = torch.cuda.Event() if self._on_gpu else None
        if self._is_complete is not None:
            self._is_complete.record()

    def content(self) -> dict[str, Any]:
        """Return the copy, once a GPU has delivered it."""
        if self._is_complete is not None:
            self._is_complete.synchronize()
        return self._content

    def _copied(self, value: Any, place: str) -> Any:
        if isinstance(value, Tensor):
            return self._copy_of(value.detach(), place)
        if isinstance(value, dict):
            return {key: self._copied(item, f"{place}/{key}") for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._copied(item, f"{place}/{number}") for number, item in enumerate(value))
        return value

    def _copy_of(self, tensor: Tensor, place: str) -> Tensor:
        on_gpu = tensor.device.type == "cuda"
        buffer = self._buffers.get(place)
        if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
            buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=on_gpu)
            self._buffers[place] = buffer
        buffer.copy_(tensor, non_blocking=on_gpu)
        self._on_gpu = self._on_gpu or on_gpu
        return buffer
