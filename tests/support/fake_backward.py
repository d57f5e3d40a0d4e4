"""The backward pass without autograd's engine, which asks for an accelerator where there is none."""

from collections import Counter, defaultdict
from typing import Any

import torch
from torch import Tensor

Node = Any  # torch.autograd.graph.Node, which has no public type for what is read here


def run_backward(loss: Tensor, gradient: Tensor | None = None, **unused: Any) -> None:
    """Add the gradients of a loss to the leaves it comes from, in the order of autograd's engine, without its hooks."""
    root = loss.grad_fn
    if root is None:
        raise RuntimeError("element 0 of tensors does not require grad and does not have a grad_fn")
    waiting = _num_users(root)
    gradients: dict[Node, dict[int, Tensor]] = defaultdict(dict)
    gradients[root][loss.output_nr] = torch.ones_like(loss) if gradient is None else gradient
    ready = [root]
    with torch.no_grad(), torch.autocast("cuda", enabled=False):
        while ready:
            node = ready.pop()
            results = _apply(node, gradients.pop(node, {}))
            for (user, number), result in zip(node.next_functions, results, strict=False):
                if user is None:
                    continue
                if result is not None:
                    _accumulate(gradients[user], user, number, result)
                waiting[user] -= 1
                if waiting[user] == 0:
                    ready.append(user)


def _num_users(root: Node) -> Counter[Node]:
    """Return how many gradients each node of a graph receives."""
    counts: Counter[Node] = Counter()
    reached, left = {root}, [root]
    while left:
        for node, _ in left.pop().next_functions:
            if node is None:
                continue
            counts[node] += 1
            if node not in reached:
                reached.add(node)
                left.append(node)
    return counts


def _apply(node: Node, received: dict[int, Tensor]) -> tuple[Tensor | None, ...]:
    """Return the gradients that a node passes on; none if it received none."""
    if not received:
        return (None,) * len(node.next_functions)
    if hasattr(node, "variable"):  # the end of the graph
        leaf = node.variable
        leaf.grad = received[0] if leaf.grad is None else leaf.grad + received[0]
        return ()
    inputs = [received.get(number) for number in range(len(node._input_metadata))]
    if isinstance(node, torch.autograd.function.BackwardCFunction):  # of a Python class
        given = [_zeros(node, number) if value is None else value for number, value in enumerate(inputs)]
        results = node.apply(*given)
    else:
        results = node(*inputs)
    return results if isinstance(results, tuple) else (results,)


def _zeros(node: Node, number: int) -> Tensor:
    """Return the gradient of a result that nothing used."""
    expected = node._input_metadata[number]
    return torch.zeros(expected.shape, dtype=expected.dtype, device=expected.device)


def _accumulate(gradients: dict[int, Tensor], node: Node, number: int, gradient: Tensor) -> None:
    """Add a gradient, in the shape and dtype of the tensor that it belongs to."""
    expected = node._input_metadata[number]
    if gradient.shape != expected.shape:
        gradient = gradient.sum_to_size(expected.shape)
    gradient = gradient.to(expected.dtype)
    gradients[number] = gradients[number] + gradient if number in gradients else gradient
