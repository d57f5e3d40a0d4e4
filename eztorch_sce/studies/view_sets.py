"""Sets of views that a study compares, and the pretraining of each.

The sets differ in what the two views of a record have in common, and so in what a network can learn from matching them.
Nothing else differs: the networks have the same size, and see the same crops, batches and epochs.
"""

from dataclasses import dataclass, replace

from eztorch_sce.augment.policies import policy
from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.config.fit import SHORT_TRAINING, SMALL_PX, fit_to_survey, memory_for
from eztorch_sce.config.schema import PretrainConfig, validate
from eztorch_sce.data.survey import Survey
from eztorch_sce.losses.sce import SCEConfig
from eztorch_sce.models.backbones.small import SmallR2Plus1DConfig


@dataclass(frozen=True)
class ViewSet:
    """Views to pretrain with.

    Attributes:
        name: Name of the set.
        meaning: What the views keep and what they change, in a few words.
        policy: Policy that the views are taken from.
        changes: Settings of the policy that are changed in every view.
    """

    name: str
    meaning: str
    policy: str
    changes: tuple[tuple[str, object], ...] = ()

    def views(self, size: int) -> list[ViewConfig]:
        """Return the views with crops of a size in pixels."""
        return [replace(view, size=size, **dict(self.changes)) for view in policy(self.policy)]  # type: ignore[arg-type]

    @property
    def input(self) -> str:
        """What the network receives, "rgb" or "difference"; sets with the same input share their untrained network."""
        return str(policy(self.policy)[0].input)


# No flips of videos: in motions, left and right may differ in meaning, and nobody has said whether they do here.
MOTION = ViewSet("motion", "frame differences: what moves, not how it looks", "motion", (("stats", "clip"),))
COLOR = ViewSet(
    "color", "frames in other colors: how it looks, in any light", "kinetics_baseline_112", (("flip", 0.0),)
)
BOTH = ViewSet("both", "frames in other colors, and at times their differences", "kinetics_112", (("flip", 0.0),))
_PLAIN = (*((name, 0.0) for name in ("brightness", "contrast", "saturation", "hue", "gray", "blur", "solarize")),)


def view_sets(records: Survey, num_frames: int | None, size: int) -> list[ViewSet]:
    """Return the sets of views to compare, those that matter most first.

    A single image does not move: for images, the question is whether colors should change between the views.

    Args:
        records: The data.
        num_frames: Frames per clip.
        size: Side of the crops in pixels.
    """
    if records.is_video and num_frames != 1:
        return [MOTION, COLOR, BOTH]
    name = "small_image" if size <= SMALL_PX else "image"
    return [
        ViewSet("color", "other crops in other colors: what is left of an object then", name),
        ViewSet("crop", "other crops, colors as they are", name, _PLAIN),
    ]


@dataclass(frozen=True)
class Basis:
    """What all pretrainings of a study have in common.

    Attributes:
        config: Validated settings, with the clips chosen, and the views and the network left open.
        records: The data.
        size: Side of the crops in pixels.
        sets: The sets of views that suit the data.
    """

    config: PretrainConfig
    records: Survey
    size: int
    sets: list[ViewSet]

    @classmethod
    def of(cls, config: PretrainConfig, records: Survey, size: int | None = None) -> "Basis":
        """Choose the clips, the crops and the sets of views.

        Args:
            config: Data and trainer; everything else is left open.
            records: The data.
            size: Side of the crops in pixels; None chooses it from the data.
        """
        config = validate(config)
        chosen, _ = fit_to_survey(config, records, memory_for(config))
        size = size or chosen.views[0].size
        assert size is not None  # chosen from the data
        config = replace(config, data=replace(chosen.data, batch_size=config.data.batch_size))
        return cls(config, records, size, view_sets(records, chosen.data.num_frames, size))

    def pretraining(self, views: ViewSet, epochs: int) -> PretrainConfig:
        """Return the validated settings of the pretraining with a set of views.

        As long as the training is short, the objective is that of our own recipes for small data (`demo` and
        `small_motion`): no predictor, higher temperatures, and a queue that holds the whole data set.

        Args:
            views: The set of views.
            epochs: Epochs of the training.
        """
        config = replace(self.config, views=views.views(self.size))
        config = replace(config, trainer=replace(config.trainer, max_epochs=epochs))
        if self.config.trainer.accelerator == "cpu":
            config = replace(config, backbone=self._small_network(views))
        fitted, _ = fit_to_survey(validate(config), self.records, memory_for(config))
        batch_size, num_records = fitted.data.samples_per_step, self.records.num_records
        if epochs * max(1, num_records // batch_size) <= SHORT_TRAINING:
            queue_size = max(1, round(num_records / batch_size)) * batch_size
            method = replace(fitted.method, queue_size=queue_size, predictor=None)
            fitted = replace(fitted, method=method, loss=SCEConfig(temperature=0.2, target_temperature=0.1))
        return validate(fitted)

    def _small_network(self, views: ViewSet) -> SmallR2Plus1DConfig:
        """Return a network that takes thousands of steps on a CPU in the time in which a ResNet-18 takes a hundred."""
        if self.config.data.num_frames == 1:
            return SmallR2Plus1DConfig(width=32, num_blocks=1)
        # Batch norm subtracts a mean that comes mostly from the still background of differences.
        return SmallR2Plus1DConfig(width=16, num_blocks=3, norm=views.input != "difference")

    def default_epochs(self) -> int:
        """Return the epochs that `pretrain` chooses for these data."""
        fitted, _ = fit_to_survey(self.config, self.records, memory_for(self.config))
        return fitted.trainer.epochs

    def steps_per_epoch(self) -> int:
        """Return the optimizer steps of an epoch."""
        return max(1, self.records.num_records // self.pretraining(self.sets[0], 1).data.samples_per_step)
