"""Workarounds for bugs in other packages."""

import contextlib
import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

_BINARIES = (".so", ".pyd", ".dylib")  # torchvision has named its file of operators _C and _C_stable
_FRAGMENTS: list[object] = []  # keeps them alive: torch drops a library fragment with its Python object


class _RepairBeforeTorchvision(MetaPathFinder):
    """Import hook that repairs torchvision just before its first import, by any package."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Repair torchvision if it is about to be imported. Always return None, so that other finders locate it."""
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            declare_missing_torchvision_operators()
        return None


def repair_torchvision_on_import() -> None:
    """Call `declare_missing_torchvision_operators` when torchvision is first imported, by Lightning for instance."""
    sys.meta_path.insert(0, _RepairBeforeTorchvision())


def declare_missing_torchvision_operators() -> bool:
    """Make `import torchvision` work when its compiled operators cannot be loaded.

    A CPU build of torch beside a CUDA build of torchvision makes `import torchvision` fail with "operator
    torchvision::nms does not exist". Nothing in this package uses those operators, so declaring the two names that
    torchvision looks up is enough. Does nothing if the operators load or torchvision is not installed.

    Returns:
        Whether the names had to be declared.
    """
    import torch

    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None or _FRAGMENTS:
        return bool(_FRAGMENTS)
    for binary in sorted(Path(spec.origin).parent.iterdir()):
        if binary.suffix not in _BINARIES or binary.name.startswith("image"):  # decoders, which come without operators
            continue
        try:
            torch.ops.load_library(str(binary))
            return False
        except OSError:
            continue
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _FRAGMENTS.append(library)
    return True


def import_pytorchvideo_models(module: str) -> ModuleType:
    """Import `pytorchvideo.models.<module>` without its deprecation warnings.

    pytorchvideo 0.1.5 is unmaintained: only its models still import, and its dependency fvcore calls deprecated
    functions of torch while it loads.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return importlib.import_module(f"pytorchvideo.models.{module}")


def declare_shapes(name: str, function: Callable[..., Any]) -> None:
    """Say what shapes an operator of torch returns, for fake tensors, where torch itself does not.

    Without it, tools that count the operators of a step on fake CUDA tensors, without a GPU, fail at kernels such as
    those of synchronized batch norm.

    Args:
        name: The operator, such as "aten::batch_norm_stats".
        function: Takes the arguments of the operator, and returns empty tensors like its results.
    """
    import torch

    with contextlib.suppress(RuntimeError):  # a later torch knows the shapes
        torch.library.register_fake(name, function)
