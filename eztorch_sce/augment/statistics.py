"""Channel statistics by name: the mean and standard deviation used to normalize the pixels of a view."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from eztorch_sce.errors import ConfigError

Channels = tuple[float, float, float]


class ChannelStatistics(NamedTuple):
    """Mean and standard deviation of red, green and blue, for pixels in [0, 1]."""

    mean: Channels
    std: Channels


STATISTICS = {
    "image": ChannelStatistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # ImageNet, as in torchvision
    "video": ChannelStatistics((0.45, 0.45, 0.45), (0.225, 0.225, 0.225)),  # Kinetics, as in pytorchvideo
    "cifar10": ChannelStatistics((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ChannelStatistics((0.5071, 0.4865, 0.4409), (0.2009, 0.1984, 0.2023)),
    "difference": ChannelStatistics((0.5, 0.5, 0.5), (0.1, 0.1, 0.1)),  # temporal differences; 0.5 is no change
}
"""The known statistics, with those that `register_statistics` added."""
PER_CLIP = "clip"
"""Normalize each clip by its own mean and deviation, which removes differences in brightness and contrast."""
_PUBLISHED = (*STATISTICS, PER_CLIP)


def statistics_names() -> list[str]:
    """Return the values that the setting `stats` of a view may have."""
    return [*STATISTICS, PER_CLIP]


def register_statistics(name: str, mean: Sequence[float], std: Sequence[float]) -> None:
    """Make a mean and standard deviation a value of the setting `stats` of a view, as in `views.*.stats=microscopy`.

    Weights files hold the numbers, so a network that was trained with them can be used without this call. Registering a
    name again replaces its numbers.

    Args:
        name: The name.
        mean: Mean of red, green and blue, for pixels in [0, 1].
        std: Standard deviation of red, green and blue; > 0.

    Raises:
        ConfigError: If the name belongs to published statistics, or the numbers are not three of each, or not in range.
    """
    messages = []
    if name in _PUBLISHED:
        messages.append(f"the statistics {name} are published: choose another name than {', '.join(_PUBLISHED)}")
    for what, values in (("mean", mean), ("std", std)):
        if len(values) != 3 or not all(map(math.isfinite, values)):
            messages.append(f"{what}={list(values)} must be three numbers: red, green and blue")
        elif not all(0 <= value <= 1 for value in values):
            messages.append(f"{what}={list(values)} must be between 0 and 1, as the pixels are: divide it by 255")
    if not messages and min(std) == 0:
        messages.append(f"std={list(std)} must be greater than 0")
    if messages:
        raise ConfigError(messages)
    STATISTICS[name] = ChannelStatistics((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))


def name_statistics(mean: Sequence[float], std: Sequence[float]) -> str:
    """Return the name of a mean and standard deviation. Unknown numbers are registered under a name that states them.

    Raises:
        ConfigError: As `register_statistics` does.

    Examples:
        >>> name_statistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        'image'
    """
    for name, known in STATISTICS.items():
        if known == (tuple(mean), tuple(std)):
            return name
    name = f"mean_{'_'.join(f'{value:.6g}' for value in mean)}_std_{'_'.join(f'{value:.6g}' for value in std)}"
    register_statistics(name, mean, std)
    return name


def normalization_of(stats: str) -> dict[str, list[float]] | None:
    """Return {"mean": [...], "std": [...]} for a weights file, or None if each clip has its own."""
    if stats == PER_CLIP:
        return None
    return {name: list(values) for name, values in STATISTICS[stats]._asdict().items()}
