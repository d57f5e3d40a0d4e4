"""Going on with the pretraining of a checkpoint: its heads, momentum encoder and queue, if the method has the same."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from eztorch_sce.models.heads import PredictorConfig, ProjectorConfig
from eztorch_sce.settings import show

_PARTS = {
    "projector": "online.projector.",
    "predictor": "online.predictor.",
    "momentum encoder": "momentum_encoder.encoder.",
    "queue": "queue.",
}
_NOT_UNIT = 1e-3  # deviation of the length of keys from 1, beyond rounding
_NEEDS = {"predictor": "projector", "momentum encoder": "projector", "queue": "momentum encoder"}


@dataclass
class GoingOn:
    """What a pretraining goes on with.

    Attributes:
        taken: Names of the parts that are taken along.
        left_out: Reasons by the names of the parts that are not.
    """

    taken: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def lines(self, file: str) -> list[str]:
        """Return what to tell the user.

        Args:
            file: The weights file as typed.
        """
        taken = f"its {', '.join(self.taken)}" if self.taken else "its backbone alone"
        anew = "the optimizer and the schedule start anew"
        reasons = [f"  note: its {part} is left out: {reason}" for part, reason in self.left_out.items()]
        return [f"weights={file}: the pretraining goes on with {taken}; {anew}", *reasons]

    def card(self) -> dict[str, Any]:
        """Return the same for the protocol card of a report."""
        return {"goes_on_with": self.taken, "left_out": self.left_out}


def go_on_with(method: nn.Module, state: Mapping[str, Tensor]) -> GoingOn:
    """Load what a method has in common with the pretraining of a checkpoint; its backbone is loaded already.

    A part is taken whole or not at all. The momentum encoder and the predictor need their projector, and the queue
    needs the momentum encoder that computed its keys. A momentum encoder that is left out starts as a copy.

    Args:
        method: The method.
        state: Tensors by their names in the state dict of a method, without the backbone.
    """
    own = method.state_dict()
    result, loaded = GoingOn(), dict[str, Tensor]()
    for part, prefix in _PARTS.items():
        theirs, ours = _within(state, prefix), _within(own, prefix)
        if not theirs and not ours:
            continue
        needed = _NEEDS.get(part)
        if needed is not None and needed not in result.taken and theirs:
            result.left_out[part] = f"it belongs to the {needed}, which is left out"
        elif reason := _difference(part, theirs, ours):
            result.left_out[part] = reason
        else:
            result.taken.append(part)
            loaded |= theirs
    if "momentum encoder" not in result.taken:
        copied = {name.replace("online.", _PARTS["momentum encoder"], 1): tensor for name, tensor in loaded.items()}
        loaded |= {name: tensor for name, tensor in copied.items() if name in own}
    method.load_state_dict(loaded, strict=False)
    return result


def _within(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if name.startswith(prefix)}


def _difference(part: str, theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> str:
    """Return why a part of a checkpoint is not that of the method, and the cure; "" if it is."""
    if not theirs:
        cure = "; method.predictor=null goes on without" if part == "predictor" else ""
        return f"the checkpoint has none{cure}"
    if part in ("projector", "predictor") and (name := _inexpressible(part, theirs)):
        return f"it has other layers than the settings can express ({name})"
    wanted, actual = _settings(part, theirs), _settings(part, ours)
    differences = [f"{name}={show(value)}" for name, value in wanted.items() if actual.get(name, value) != value]
    if not ours:
        return f"the method has none; set {' '.join(differences)}" if differences else "the method has none"
    if differences:
        return f"set {' '.join(differences)} to take it along"
    if part == "queue" and (reason := _difference_of_keys(theirs["queue.keys"], ours["queue.keys"])):
        return reason
    names = [*(theirs.keys() - ours.keys()), *(ours.keys() - theirs.keys())]
    names += [name for name, tensor in theirs.items() if name in ours and ours[name].shape != tensor.shape]
    return f"it has other layers than the method ({min(names)})" if names else ""


def _inexpressible(part: str, theirs: Mapping[str, Tensor]) -> str:
    """Return a layer of a head that no setting of ours makes; "" if there is none."""
    prefix = _PARTS[part]
    settings = {name.rpartition(".")[2]: value for name, value in _settings(part, theirs).items()}
    inputs = [tensor.shape[1] for name, tensor in theirs.items() if name.endswith(".weight") and tensor.ndim == 2]
    if not inputs:
        return min(theirs)
    with torch.device("meta"):
        if part == "projector":
            head: nn.Module = ProjectorConfig(**settings).build(inputs[0])
        else:
            head = PredictorConfig(**settings).build(inputs[0], inputs[0])
    shapes = {prefix + name: tensor.shape for name, tensor in head.state_dict().items()}
    return min((name for name in {**shapes, **theirs} if name not in shapes or name not in theirs), default="")


def _difference_of_keys(theirs: Tensor, ours: Tensor) -> str:
    """Return why the keys of a queue are not like those of the method; "" if they are."""
    if theirs.shape != ours.shape:
        return f"its keys have {theirs[0].numel()} numbers instead of {ours.shape[1]}"
    theirs_unit, ours_unit = (bool(((keys.norm(dim=1) - 1).abs() < _NOT_UNIT).all()) for keys in (theirs, ours))
    return "" if theirs_unit or not ours_unit else "its keys are no unit vectors, as the loss expects them"


def _settings(part: str, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the settings that tensors of a part were made with, by their paths."""
    if part == "queue":
        keys = state.get("queue.keys")
        return {"method.queue_size": 0 if keys is None else len(keys)}
    if part == "momentum encoder":
        return {}
    linear = [
        (int(match.group(1)), tensor)
        for name, tensor in state.items()
        if (match := re.search(r"\.(\d+)\.weight$", name)) and tensor.ndim == 2
    ]
    if part == "predictor":
        return {"method.predictor.hidden_dim": linear[0][1].shape[0] if linear else None}
    if not linear:
        return {}
    last, output = linear[-1]
    hidden = {"hidden_dim": linear[0][1].shape[0]} if len(linear) > 1 else {}
    values = hidden | {
        "num_hidden": len(linear) - 1,
        "output_dim": output.shape[0],
        "output_norm": f"online.projector.{last + 1}.running_mean" in state,
    }
    return {f"method.projector.{name}": value for name, value in values.items()}
