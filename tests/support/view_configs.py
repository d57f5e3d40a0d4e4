"""Views for the tests of augmentation."""

from eztorch_sce.augment.view import ViewConfig

ALL_OPERATIONS = ViewConfig(
    size=32,
    brightness=0.8,
    contrast=0.8,
    saturation=0.4,
    hue=0.2,
    gray=0.2,
    blur=0.5,
    solarize=0.2,
    flip=0.5,
    temporal_difference=0.2,
    stats="video",
)
