"""Calls of a loss by a method: which arguments it takes, and its mean over pairs of views."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eztorch_sce.distributed import gather_with_offset
from eztorch_sce.errors import ConfigError
from eztorch_sce.losses.pairs import Loss, PairLosses, PairsLoss, ViewPairs, alignment
from eztorch_sce.precision import exact_float32, exact_gradients


def over_pairs_of(loss: Loss) -> Callable[[ViewPairs], PairLosses]:
    """Return the function that averages a loss over pairs of views: its own `over_pairs` if it has one.

    Any other loss is called once per pair. With a queue, it receives the queries and keys of this process, and the
    queue as negatives. Without a queue, it receives the queries and keys of all processes: its negatives, if it has
    any, are the other samples of the global batch.
    """
    return loss.over_pairs if isinstance(loss, PairsLoss) else partial(_mean_over_pairs, loss)


def _mean_over_pairs(loss: Loss, views: ViewPairs) -> PairLosses:
    """Return the mean of one call per pair, computed in float32 whatever the precision of the networks.

    Raises:
        ConfigError: If the loss does not return a scalar.
    """
    call: Callable[..., Any] = loss
    queries, keys, pairs, negatives, *_ = views
    if negatives is None:
        all_rows, _ = gather_with_offset(torch.stack([*queries, *keys], dim=1))  # one exchange for all views
        rows = all_rows.unbind(dim=1)
        queries, keys = list(rows[: len(queries)]), list(rows[len(queries) :])
    others = [] if use_of_negatives(loss) == "none" else [negatives]
    with exact_float32():
        terms = [call(queries[i], keys[j], *others) for i, j in pairs]
    for term in terms:
        if not isinstance(term, Tensor) or term.ndim > 0:
            returned = f"a tensor {tuple(term.shape)}" if isinstance(term, Tensor) else type(term).__name__
            name = name_of_loss(loss)
            raise ConfigError([f"loss: {name} returned {returned}; it must return a scalar, the batch mean"])
    if not views.with_metrics:
        return PairLosses(torch.stack(terms).mean(), {})
    if not takes_unit_vectors(loss):
        normalized = [[F.normalize(rows.detach(), dim=1) for rows in each] for each in (views.queries, views.keys)]
        views = views._replace(queries=normalized[0], keys=normalized[1])
    mean = torch.stack(terms).mean()
    exact_gradients(mean, [*queries, *keys])
    return PairLosses(mean, {"alignment": alignment(views)})


def use_of_negatives(loss: Loss) -> str:
    """Return "none", "optional" or "required": whether a loss has a parameter for negatives, and works without them."""
    if getattr(_called_by(loss), "needs_negatives", False):
        return "required"
    signature = signature_of(loss)
    if signature is None:
        return "optional"
    parameters = signature.parameters.values()
    takes_any = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) < 3:
        return "optional" if takes_any else "none"
    default = positional[2].default
    if default is inspect.Parameter.empty:
        return "required"
    return "optional" if default is None else "none"  # a third parameter with another default is a setting


def signature_of(function: Any) -> inspect.Signature | None:
    """Return the signature of a function or of the `forward` of a module; None for compiled code, which has none."""
    if isinstance(function, nn.Module):
        function = function.forward
    if isinstance(function, partial) and isinstance(function.func, nn.Module):
        function = partial(function.func.forward, *function.args, **function.keywords)
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def negatives_problems(loss: Loss, queue: str, batch_keys: str) -> list[str]:
    """Return one message per disagreement between a loss and the negatives of a method.

    Args:
        loss: The loss.
        queue: The setting that gives the method its queue, such as "queue_size=4096"; empty if there is no queue.
        batch_keys: The setting that gives it the keys of the batch as negatives; empty if there are none.
    """
    use, name = use_of_negatives(loss), name_of_loss(loss)
    if isinstance(loss, PairsLoss):
        if use == "required" and not queue and not batch_keys:
            return [f"{name} needs negatives, and the method has neither queue nor batch_keys: set one of them"]
        return []
    if use == "required" and not queue:
        return [
            f"{name} needs negatives, and the method has no queue: give the parameter the default None, and use the "
            "other samples of the batch (rows of key) as negatives; or use a method with a queue (momentum_contrast)"
        ]
    messages = []
    if use == "none" and queue:
        messages.append(f"{queue}: {name} takes (query, key) only; set queue_size=0, or add a parameter negatives=None")
    if queue and batch_keys:
        messages.append(
            f"{batch_keys}: with a queue, only a loss with over_pairs(views) receives the keys of the batch, and "
            f"{name} has none; set batch_keys=false, or queue_size=0 (the other keys are then rows of key)"
        )
    return messages


def takes_unit_vectors(loss: Loss) -> bool:
    """Return whether a loss expects unit vectors, which is the default."""
    return bool(getattr(_called_by(loss), "takes_unit_vectors", True))


def module_within(loss: Loss) -> nn.Module | None:
    """Return the module that a partial or a bound method calls, whose parameters belong to the method; else None."""
    called = _called_by(loss)
    return called if isinstance(called, nn.Module) and called is not loss else None


def name_of_loss(loss: object) -> str:
    """Return the name of a function, or of the class of a module."""
    called = _called_by(loss)
    return str(getattr(called, "__name__", type(called).__name__))


def _called_by(loss: Any) -> Any:
    """Return the function or module that a partial or a bound method calls."""
    while isinstance(loss, partial):
        loss = loss.func
    return getattr(loss, "__self__", loss)
