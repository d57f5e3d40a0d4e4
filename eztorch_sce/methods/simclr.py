"""SimCLR: one encoder, each view of a sample tells the others from the rest of the batch."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from eztorch_sce.distributed import gather_with_offset
from eztorch_sce.losses.pairs import Loss
from eztorch_sce.methods.views import embed_views
from eztorch_sce.models.backbones.base import Backbone
from eztorch_sce.models.encoder import Encoder
from eztorch_sce.models.heads import ProjectorConfig
from eztorch_sce.registry import register
from eztorch_sce.types import StepOutput


class SimCLR(nn.Module):
    """Every global view is a query and a key; gradients flow through both, across all processes.

    Source: Chen et al., ICML 2020, arXiv:2002.05709.

    Args:
        backbone: The network to train.
        loss: On pairs; `NTXentLoss` in the paper.
        config: The projector.
    """

    def __init__(self, backbone: Backbone, loss: Loss, config: "SimCLRConfig") -> None:
        super().__init__()
        self.online = Encoder(backbone, config.projector.build(backbone.num_features))
        self.loss = loss
        self.config = config

    @property
    def backbone(self) -> Backbone:
        """The backbone to keep."""
        return self.online.backbone

    def forward(self, views: list[Tensor]) -> StepOutput:
        """Return the loss of one batch from normalized views, each (B, C, T, S, S), global views first."""
        num_targets = self.config.num_global_views
        queries = [embedded.z for embedded in embed_views(self.online, views, num_targets)]  # each (B, D)
        keys = queries[:num_targets]
        everyone, offset = gather_with_offset(torch.stack(keys, dim=1))  # (G, V, D)
        pairs = [(i, j) for j in range(num_targets) for i in range(len(queries)) if i != j]
        in_batch = [everyone.transpose(0, 1)] * num_targets
        loss, metrics = self.loss.over_pairs(queries, keys, pairs, None, in_batch, offset)
        return StepOutput(loss, metrics, keys[0].detach())

    def after_step(self, progress: float) -> None:
        """Do nothing: there is no second encoder to move."""


@register("method", "simclr")
@dataclass
class SimCLRConfig:
    """Settings of `SimCLR`.

    Attributes:
        projector: The head.
        num_global_views: How many of the views are global; further ones are queries only.
    """

    projector: ProjectorConfig = field(default_factory=ProjectorConfig)
    num_global_views: int = 2

    has_negatives = True  # the rest of the batch

    def problems(self, prefix: str) -> list[str]:
        """Name each setting that cannot be."""
        if self.num_global_views < 2:
            return [f"{prefix}.num_global_views={self.num_global_views} must be at least 2"]
        return []

    def build(self, backbone: Backbone, loss: Loss) -> SimCLR:
        """Return the method, which trains `backbone` with `loss`."""
        return SimCLR(backbone, loss, self)
