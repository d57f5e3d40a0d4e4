"""Momentum prediction: MoCo v3 (`loss=infonce`) and BYOL (`loss=cosine`)."""

from dataclasses import dataclass

from eztorch_sce.losses.pairs import Loss
from eztorch_sce.methods.momentum_contrast import MomentumConfig, MomentumContrast, MomentumContrastConfig
from eztorch_sce.models.backbones.base import Backbone
from eztorch_sce.models.heads import PredictorConfig
from eztorch_sce.registry import register
from eztorch_sce.settings import setting


@register("method", "momentum_predict")
@dataclass
class MomentumPredictConfig(MomentumConfig):
    """Momentum contrast without a queue: predict the momentum encoder's key among the keys of the batch.

    Source: Chen et al., ICCV 2021, arXiv:2104.02057 (MoCo v3); Grill et al., NeurIPS 2020, arXiv:2006.07733 (BYOL).
    """

    predictor: PredictorConfig = setting(PredictorConfig(), help="Head from online projections to predicted keys.")

    has_negatives = True  # the keys of the batch

    def build(self, backbone: Backbone, loss: Loss) -> MomentumContrast:
        """Return the method that trains `backbone` with `loss`."""
        return MomentumContrast(backbone, loss, MomentumContrastConfig(**vars(self), queue_size=0, batch_keys=True))
