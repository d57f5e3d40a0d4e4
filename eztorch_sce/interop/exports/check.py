"""The comparison of an export with the network, without which it is not kept."""

from collections.abc import Sequence

from torch import Tensor

from eztorch_sce.errors import ConfigError

TOLERANCE = 1e-4
"""Largest difference of the outputs, or fraction of their largest value if that is more than 1."""


def largest_difference(format_name: str, actual: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return the largest absolute difference between outputs.

    Args:
        format_name: Name of the format, for the message.
        actual: Outputs of what was written.
        expected: Outputs of the network.

    Raises:
        ConfigError: If they differ by more than the tolerance, or in their number or shapes.
    """
    if [tuple(each.shape) for each in actual] != [tuple(each.shape) for each in expected]:
        shapes = " and ".join(str([tuple(each.shape) for each in outputs]) for outputs in (actual, expected))
        raise ConfigError([f"format={format_name} gives outputs of other shapes than the network: {shapes}"])
    largest = 0.0
    for ours, theirs in zip(expected, actual, strict=True):
        difference, scale = float((theirs - ours).abs().max()), max(1.0, float(ours.abs().max()))
        if not difference <= TOLERANCE * scale:  # NaN too
            what = f"its outputs differ by up to {difference:.2g}, of values up to {scale:.2g}"
            cure = "nothing was written; choose another format"
            raise ConfigError([f"format={format_name} does not express this network: {what}; {cure}"])
        largest = max(largest, difference)
    return largest
