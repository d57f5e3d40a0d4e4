"""Operators of torch that launch a kernel on a GPU, and those that do not."""

from typing import Any

_LAUNCH_NOTHING = {  # views and allocations
    *("view", "_unsafe_view", "view_as", "_reshape_alias", "expand", "transpose", "t", "permute", "select", "slice"),
    *("narrow", "unsqueeze", "squeeze", "alias", "detach", "detach_", "as_strided", "split", "split_with_sizes"),
    *("chunk", "unbind", "diagonal", "unfold", "lift_fresh", "set_", "is_pinned"),
    *("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "resize_"),
}


def launches_a_kernel(operator: Any) -> bool:
    """Return whether an operator of torch.ops, such as one seen by a TorchDispatchMode, launches a kernel."""
    return operator.namespace == "aten" and operator.overloadpacket.__name__ not in _LAUNCH_NOTHING
