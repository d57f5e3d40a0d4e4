"""The machine that a command runs on: its GPUs, its compilers, and the launcher that started the process."""

import os
import shutil
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from eztorch_sce.launch import Launch, can_be_repeated, find_launch

BF16_CAPABILITY = (8, 0)
"""Lowest CUDA compute capability with arithmetic in bfloat16 (Ampere)."""
_TRITON_CAPABILITY = (7, 0)  # lowest one that Triton compiles for


class Missing(NamedTuple):
    """What `torch.compile` needs and a machine lacks, with the cure; None if nothing is missing.

    Attributes:
        on_cpu: For networks on the CPU.
        on_gpu: For networks on GPUs.
    """

    on_cpu: str | None = None
    on_gpu: str | None = None


class Machine(NamedTuple):
    """The GPUs, the launcher and the compilers of a process.

    Attributes:
        num_gpus: GPUs that torch can use.
        launch: How this process was launched together with others, or None if it was started by itself.
        is_interactive: Whether this is a notebook or an interactive session, which can start no further processes.
        capability: Lowest CUDA compute capability of the GPUs.
        missing: What `torch.compile` needs and the machine lacks.
    """

    num_gpus: int
    launch: Launch | None = None
    is_interactive: bool = False
    capability: tuple[int, int] = BF16_CAPABILITY
    missing: Missing = Missing()

    @property
    def has_bf16(self) -> bool:
        """Whether the GPUs compute in bfloat16."""
        return self.num_gpus > 0 and self.capability >= BF16_CAPABILITY


def this_machine() -> Machine:
    """Return the GPUs, the launcher and the compilers of this process."""
    import torch

    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    capability = BF16_CAPABILITY  # AMD's GPUs number theirs differently
    if num_gpus and torch.version.hip is None:
        capability = min(torch.cuda.get_device_capability(number) for number in range(num_gpus))
    missing = Missing(_missing_on_cpu(), _missing_on_gpu(capability) if num_gpus else None)
    return Machine(num_gpus, find_launch(), not can_be_repeated(), capability, missing)


def _missing_on_cpu() -> str | None:
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return f"a C++ compiler ({compiler} is not on the PATH): install g++, or set CXX to a compiler"
    return _missing_headers()


def _missing_on_gpu(capability: tuple[int, int]) -> str | None:
    if capability < _TRITON_CAPABILITY:
        needed, found = (".".join(map(str, numbers)) for numbers in (_TRITON_CAPABILITY, capability))
        return f"GPUs of compute capability {needed} or higher, and these have {found}"
    if find_spec("triton") is None:
        return "Triton: pip install triton"
    names = [os.environ["CC"]] if "CC" in os.environ else ["gcc", "clang"]  # the order in which Triton looks
    if not any(map(shutil.which, names)):
        return f"a C compiler ({' and '.join(names)} not on the PATH): install gcc, or set CC to a compiler"
    return _missing_headers()


def _missing_headers() -> str | None:
    folder = Path(sysconfig.get_path("include"))
    if (folder / "Python.h").is_file():
        return None
    return f"the headers of Python ({folder}/Python.h does not exist): install python3-dev"
