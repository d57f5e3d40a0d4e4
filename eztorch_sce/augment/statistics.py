"""Channel statistics by name: the mean and standard deviation used to normalize the pixels of a view."""

from typing import NamedTuple

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
PER_CLIP = "clip"
"""Normalize each clip by its own mean and deviation, which removes differences in brightness and contrast."""
STATISTICS_NAMES = (*STATISTICS, PER_CLIP)
