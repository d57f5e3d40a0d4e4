"""A replayed step in words: its loss beside that of the run, its records, and where the first bad number came from."""

import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from eztorch_sce.errors import counted
from eztorch_sce.replaying import Replay

if TYPE_CHECKING:
    from eztorch_sce.training.layer_watch import LayerNumbers, Place

_WIDTH = 80
_MAX_RECORDS = 16  # whose views are told, unless numbers belong to others


def lines(replay: Replay) -> Iterator[str]:
    """Yield the lines that the command prints."""
    start = "the start of the training" if replay.start is None else str(replay.start)
    yield f"step {replay.step}, epoch {replay.epoch}, from {start}"
    yield from _losses(replay)
    yield ""
    yield from _records(replay)
    yield ""
    yield from _first(replay)
    for note in replay.notes:
        yield from textwrap.wrap(f"note: {note}", _WIDTH, subsequent_indent="  ")


def _losses(replay: Replay) -> Iterator[str]:
    """Yield the losses of the replay and of the run."""
    yield f"  loss of the replay  {_numbers(replay.losses)}"
    if replay.kept is not None:
        kept = [batch["loss"] for process in replay.kept["processes"] for batch in process]
        same = "" if replay.kept["world_size"] > 1 else _comparison(replay.losses, kept)
        yield f"  loss of the run     {_numbers(kept)}{same}"
    if replay.logged is not None:
        yield f"  logged loss         {_numbers([replay.logged])}"
    elif replay.kept is None:
        yield "  loss of the run     not logged: see run.log_every_n_steps"
    if replay.same_views is not None:
        yield f"  views               {'equal to' if replay.same_views else 'NOT equal to'} those of the run"


def _comparison(losses: Sequence[float | None], kept: Sequence[float | str | None]) -> str:
    is_equal = [_number(loss) for loss in losses] == [_number(loss) for loss in kept]
    return ", equal" if is_equal else ", NOT equal"


def _numbers(losses: Sequence[float | str | None]) -> str:
    return ", ".join(map(_number, losses))


def _number(loss: float | str | None) -> str:
    """Return a loss with all its digits, whether it is a number or what JSON holds of it."""
    return "none, too few files could be read" if loss is None else str(float(loss))


def _records(replay: Replay) -> Iterator[str]:
    """Yield the records of the step, with what their views drew."""
    yield f"{counted(len(replay.records), 'record')}, with what their views drew"
    bad = {path for _, path in replay.samples[:_MAX_RECORDS]}
    shown = [record for number, record in enumerate(replay.records) if number < _MAX_RECORDS or record.path in bad]
    for record in shown:
        yield f"  {record.path}"
        for view in record.views:
            yield from textwrap.wrap("; ".join(view.caption), _WIDTH, initial_indent="    ", subsequent_indent="      ")
    if len(shown) < len(replay.records):
        yield f"  and {len(replay.records) - len(shown)} more"
    for failure in replay.failures:
        yield f"  could not be read: {failure.path}: {failure.reason}"


def _first(replay: Replay) -> Iterator[str]:
    """Yield where the step first held a number that is not finite."""
    place = replay.place
    if place is None:
        yield "every number is finite: views, layers, loss and gradients"
        return
    numbers = place.numbers
    count = counted(math.prod(numbers.shape), "number")
    yield "first number that is not finite"
    yield f"  {_where(place)}"
    yield f"  {numbers.num_invalid} of {count} of {numbers.dtype}; finite ones: {_range(numbers)}"
    for weight in place.weights:
        yield f"  {weight.layer}: {_range(weight)}"
    yield from _samples(replay)
    if place.stage == "loss":
        yield "  every layer before it is finite: look at the divisions, logarithms and roots of the loss"
    if place.stage == "state":
        yield "  it was so before this step: an earlier step has changed it"
    if place.before:
        what = "gradients" if place.stage == "gradient" else "layers"
        yield f"last {what} before it"
        yield from _table(place.before)


def _samples(replay: Replay) -> Iterator[str]:
    """Yield the view and the record of each sample that the numbers belong to."""
    every = {record.path for record in replay.records}
    for view in dict.fromkeys(view for view, _ in replay.samples):
        paths = [path for number, path in replay.samples if number == view]
        if len(every) > 1 and every <= set(paths):
            yield f"  view {view} of every record"
        else:
            yield from (f"  view {view} of {path}" for path in paths[:_MAX_RECORDS])
            if len(paths) > _MAX_RECORDS:
                yield f"  and of {counted(len(paths) - _MAX_RECORDS, 'further record')}"


def _where(place: "Place") -> str:
    layer = f"{place.numbers.layer} ({place.numbers.kind})" if place.numbers.kind else place.numbers.layer
    before = f", after {place.before[-1].layer}" if place.before else ""
    return {
        "state": f"{layer}, in the state before the step",
        "view": f"{layer}, as the network receives it",
        "input": f"input of {layer}{before}",
        "output": f"output of {layer}",
        "loss": "the loss",
        "gradient": f"gradient of {layer}",
    }[place.stage]


def _table(layers: Sequence["LayerNumbers"]) -> Iterator[str]:
    """Yield a row for each layer: type, least and greatest number, and its name, which may be long."""
    yield f"  {'dtype':10} {'min':>11} {'max':>11}  layer"
    for numbers in layers:
        low, high = ("" if value is None else f"{value:.4g}" for value in (numbers.low, numbers.high))
        yield f"  {numbers.dtype:10} {low:>11} {high:>11}  {numbers.layer} ({numbers.kind})"


def _range(numbers: "LayerNumbers") -> str:
    return "none" if numbers.low is None else f"{numbers.low:.4g} to {numbers.high:.4g}"
