"""What other packages break, mended in one place."""

import importlib
import importlib.util
import warnings
from pathlib import Path
from types import ModuleType

import torch

_FRAGMENTS: list[torch.library.Library] = []  # a library fragment lives as long as its Python object


def declare_missing_torchvision_operators() -> bool:
    """Make `import torchvision` work where its compiled operators cannot be loaded.

    A CPU build of torch beside a CUDA build of torchvision makes `import torchvision` fail with "operator
    torchvision::nms does not exist". Nothing in this package uses those operators, so declaring the two names that
    torchvision looks up is enough. Does nothing where the operators load, or torchvision is not installed.

    Returns:
        Whether the names had to be declared.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None or _FRAGMENTS:
        return bool(_FRAGMENTS)
    for binary in Path(spec.origin).parent.glob("_C.*"):
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
    """Import `pytorchvideo.models.<module>`, quietly.

    pytorchvideo 0.1.5 is unmaintained: only its models still import, and what it imports itself (fvcore) calls
    deprecated functions of torch while it loads.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return importlib.import_module(f"pytorchvideo.models.{module}")
