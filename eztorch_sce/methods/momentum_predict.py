"""Momentum prediction: MoCo v3 (`loss=infonce`) and BYOL (`loss=cosine`)."""

from dataclasses import dataclass, field

from eztorch_sce.losses.pairs import Loss
from eztorch_sce.methods.momentum_contrast import MomentumContrast, MomentumContrastConfig
from eztorch_sce.models.backbones.base import Backbone
from eztorch_sce.models.heads import PredictorConfig, ProjectorConfig
from eztorch_sce.registry import register


@register("method", "momentum_predict")
@dataclass
class MomentumPredictConfig:
    """Momentum contrast without a queue: predict the keys of the momentum encoder, among those of the batch.

    Source: Chen et al., ICCV 2021, arXiv:2104.02057 (MoCo v3); Grill et al., NeurIPS 2020, arXiv:2006.07733 (BYOL).

    Attributes:
        projector, predictor: The heads.
        momentum: Of the momentum encoder at the start of training.
        momentum_schedule: "cosine" rises to 1 at the end, "constant" stays.
        symmetric: Each global view is a target; otherwise only the first view is.
        num_global_views: How many of the views are global.
    """

    projector: ProjectorConfig = field(default_factory=ProjectorConfig)
    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    momentum: float = 0.99
    momentum_schedule: str = "cosine"
    symmetric: bool = True
    num_global_views: int = 2

    has_negatives = True  # the keys of the batch

    def problems(self, prefix: str) -> list[str]:
        """Name each setting that cannot be."""
        return self._as_contrast().problems(prefix)

    def build(self, backbone: Backbone, loss: Loss) -> MomentumContrast:
        """Return the method, which trains `backbone` with `loss`."""
        return MomentumContrast(backbone, loss, self._as_contrast())

    def _as_contrast(self) -> MomentumContrastConfig:
        return MomentumContrastConfig(
            projector=self.projector,
            predictor=self.predictor,
            queue_size=0,
            batch_keys=True,
            momentum=self.momentum,
            momentum_schedule=self.momentum_schedule,
            symmetric=self.symmetric,
            num_global_views=self.num_global_views,
        )
