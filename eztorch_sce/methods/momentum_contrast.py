"""Momentum contrast: MoCo, and with its loss SCE."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from eztorch_sce.distributed import gather_rows
from eztorch_sce.models.backbones.base import Backbone
from eztorch_sce.models.encoder import Encoder
from eztorch_sce.models.heads import PredictorConfig, ProjectorConfig
from eztorch_sce.models.momentum import MomentumEncoder, cosine_momentum
from eztorch_sce.models.queue import Queue
from eztorch_sce.registry import register
from eztorch_sce.types import StepOutput


class MomentumContrast(nn.Module):
    """Queries of the online encoder against keys of a momentum encoder and a queue of past keys.

    Global views come first. Symmetric: each global view is the target of all other views. Asymmetric: the first view
    is the target of the others. Further (local) views are queries only.

    Source: He et al., CVPR 2020, arXiv:1911.05722; with `SCELoss`: Denize et al., WACV 2023, arXiv:2111.14585.

    Args:
        backbone: The network to train.
        loss: Called as loss(query, key, negatives).
        config: Heads, queue and momentum.
    """

    def __init__(self, backbone: Backbone, loss: nn.Module, config: "MomentumContrastConfig") -> None:
        super().__init__()
        width, dim = backbone.num_features, config.projector.output_dim
        predictor = None if config.predictor is None else config.predictor.build(width, dim)
        self.online = Encoder(backbone, config.projector.build(width), predictor)
        self.momentum_encoder = MomentumEncoder(self.online)
        self.queue = Queue(config.queue_size, dim)
        self.loss = loss
        self.config = config

    @property
    def backbone(self) -> Backbone:
        """The backbone to keep: the online one, as in the papers."""
        return self.online.backbone

    def forward(self, views: list[Tensor]) -> StepOutput:
        """Return the loss of one batch from normalised views, each (B, C, T, S, S), global views first."""
        num_targets = self.config.num_global_views if self.config.symmetric else 1
        keys = [self.momentum_encoder(view) for view in views[:num_targets]]  # each (B, D)
        first_query = 0 if num_targets > 1 else 1
        queries = {i: self.online(view).q for i, view in enumerate(views) if i >= first_query}  # each (B, D)

        negatives = self.queue.keys.clone()  # the snapshot before this step's keys; the graph holds on to it
        terms = [self.loss(q, key, negatives) for i, key in enumerate(keys) for j, q in queries.items() if i != j]
        loss = torch.stack(terms).mean()
        self.queue.enqueue(gather_rows(torch.cat(keys)))

        spread = keys[0].std(dim=0).mean() * keys[0].shape[1] ** 0.5  # 1 when spread evenly, 0 when collapsed
        return StepOutput(loss, {"key_spread": spread})

    def after_step(self, progress: float) -> None:
        """Move the momentum encoder; once per optimizer step, at `progress` in [0, 1] of training."""
        start = self.config.momentum
        momentum = cosine_momentum(start, progress) if self.config.momentum_schedule == "cosine" else start
        self.momentum_encoder.update(self.online, momentum)


@register("method", "momentum_contrast")
@dataclass
class MomentumContrastConfig:
    """Settings of `MomentumContrast`.

    Attributes:
        projector, predictor: The heads; `predictor=null` for none.
        queue_size: Number of past keys.
        momentum: Of the momentum encoder at the start of training.
        momentum_schedule: "cosine" rises to 1 at the end, "constant" stays.
        symmetric: Each global view is a target; otherwise only the first view is.
        num_global_views: How many of the views are global.
    """

    projector: ProjectorConfig = field(default_factory=ProjectorConfig)
    predictor: PredictorConfig | None = field(default_factory=PredictorConfig)
    queue_size: int = 4096
    momentum: float = 0.99
    momentum_schedule: str = "cosine"
    symmetric: bool = True
    num_global_views: int = 2

    def problems(self, prefix: str) -> list[str]:
        """Name each setting that cannot be."""
        found = []
        if self.queue_size < 1:
            found.append(f"{prefix}.queue_size={self.queue_size} must be at least 1")
        if not 0 <= self.momentum <= 1:
            found.append(f"{prefix}.momentum={self.momentum} must be between 0 and 1")
        if self.momentum_schedule not in ("cosine", "constant"):
            found.append(f"{prefix}.momentum_schedule={self.momentum_schedule} must be one of cosine, constant")
        if self.num_global_views < 2:
            found.append(f"{prefix}.num_global_views={self.num_global_views} must be at least 2")
        return found

    def build(self, backbone: Backbone, loss: nn.Module) -> MomentumContrast:
        """Return the method, which trains `backbone` with `loss`."""
        return MomentumContrast(backbone, loss, self)
