"""The comparison of an export with the network, without which it is not kept."""

from collections.abc import Callable, Sequence

from torch import Tensor

from eztorch_sce.errors import ConfigError
from eztorch_sce.interop.exports.taken import Taken, outputs_of

TOLERANCE = 1e-4
"""Largest difference of the outputs, or fraction of their largest value if that is more than 1."""
BATCH_SIZES = (1, 3)
"""Sizes of the batches that are compared; exporters are given an example of another size."""
EXAMPLE_SIZE = 2


def difference_from(taken: Taken, run: Callable[[Tensor], Sequence[Tensor]], format_name: str) -> float:
    """Return the largest absolute difference between the outputs of an export and those of the network.

    Args:
        taken: The network.
        run: Runs what was written, on inputs of any batch size.
        format_name: Name of the format, for the message.

    Raises:
        ConfigError: If they differ by more than the tolerance, or in their number or shapes.
    """
    largest = 0.0
    for batch_size in BATCH_SIZES:
        inputs = taken.inputs(batch_size)
        expected, actual = outputs_of(taken.network, inputs), run(inputs)
        shapes = [[tuple(each.shape) for each in outputs] for outputs in (expected, actual)]
        if shapes[0] != shapes[1]:
            raise ConfigError(
                [_refusal(format_name, f"its outputs have the shapes {shapes[1]} instead of {shapes[0]}")]
            )
        for ours, theirs in zip(expected, actual, strict=True):
            difference, scale = float((theirs - ours).abs().max()), max(1.0, float(ours.abs().max()))
            if not difference <= TOLERANCE * scale:  # NaN too
                what = f"its outputs differ by up to {difference:.2g}, of values up to {scale:.2g}"
                raise ConfigError([_refusal(format_name, what)])
            largest = max(largest, difference)
    return largest


def _refusal(format_name: str, reason: str) -> str:
    return f"format={format_name} does not express this network: {reason}; nothing was written, choose another format"
