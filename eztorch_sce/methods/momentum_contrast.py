"""Momentum contrast: MoCo, and by its loss ReSSL and SCE."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from eztorch_sce.distributed import gather_rows, gather_with_offset, same_permutation
from eztorch_sce.losses.pairs import Loss
from eztorch_sce.methods.views import embed_views
from eztorch_sce.models.backbones.base import Backbone
from eztorch_sce.models.batch_norm import split_batch_norms
from eztorch_sce.models.encoder import Encoder
from eztorch_sce.models.heads import PredictorConfig, ProjectorConfig
from eztorch_sce.models.momentum import MomentumEncoder, cosine_momentum
from eztorch_sce.models.queue import Queue
from eztorch_sce.registry import register
from eztorch_sce.types import StepOutput


class MomentumContrast(nn.Module):
    """Queries of the online encoder against keys of a momentum encoder, of a queue of past keys, or of both.

    Global views come first. Symmetric: each global view is the target of all other views. Asymmetric: the first view
    is the target of the others. Further (local) views are queries only.

    Source: He et al., CVPR 2020, arXiv:1911.05722; with `SCELoss`: Denize et al., WACV 2023, arXiv:2111.14585.

    Args:
        backbone: The network to train.
        loss: On pairs of queries and keys.
        config: Heads, queue and momentum.
    """

    def __init__(self, backbone: Backbone, loss: Loss, config: "MomentumContrastConfig") -> None:
        super().__init__()
        width, dim = backbone.num_features, config.projector.output_dim
        predictor = None if config.predictor is None else config.predictor.build(width, dim)
        self.online = Encoder(backbone, config.projector.build(width), predictor)
        if config.bn_splits > 1:
            split_batch_norms(self.online, config.bn_splits)
        self.momentum_encoder = MomentumEncoder(self.online)
        self.queue = Queue(config.queue_size, dim) if config.queue_size else None
        self.loss = loss
        self.config = config

    @property
    def backbone(self) -> Backbone:
        """The backbone to keep: the online one, as in the papers."""
        return self.online.backbone

    def forward(self, views: list[Tensor]) -> StepOutput:
        """Return the loss of one batch from normalized views, each (B, C, T, S, S), global views first."""
        num_targets = self.config.num_global_views if self.config.symmetric else 1
        keys = [self._keys(view) for view in views[:num_targets]]  # each (B, D)
        first_query = 0 if num_targets > 1 else 1
        embeddings = embed_views(self.online, views[first_query:], self.config.num_global_views - first_query)
        queries = [embedded.q for embedded in embeddings]  # each (B, D)
        pairs = [(i, j) for j in range(num_targets) for i in range(len(queries)) if i + first_query != j]

        negatives = None if self.queue is None else self.queue.keys  # as they were before this step
        batch_keys, offset = None, 0
        if self.config.batch_keys or self.queue is not None:
            everyone, offset = gather_with_offset(torch.stack(keys, dim=1))  # (G, V, D): one exchange for all views
            if self.config.batch_keys:
                batch_keys = list(everyone.unbind(dim=1))
        loss, metrics = self.loss.over_pairs(queries, keys, pairs, negatives, batch_keys, offset)
        if self.queue is not None:
            metrics["queue_age"] = torch.tensor(len(self.queue.keys) / everyone[:, :, 0].numel())  # steps
            self.queue.enqueue(everyone.transpose(0, 1).flatten(0, 1))
        return StepOutput(loss, metrics, keys[0])

    def after_step(self, progress: float) -> None:
        """Move the momentum encoder; once per optimizer step, at `progress` in [0, 1] of training."""
        start = self.config.momentum
        momentum = cosine_momentum(start, progress) if self.config.momentum_schedule == "cosine" else start
        self.momentum_encoder.update(self.online, momentum)

    @torch.no_grad()
    def _keys(self, view: Tensor) -> Tensor:
        """Embed a global view (B, C, T, S, S); shuffled, its samples meet others in batch norm than the queries do."""
        if not self.config.shuffle_bn:
            return self.momentum_encoder(view)
        everyone, first = gather_with_offset(view)
        order = same_permutation(len(everyone), view.device)
        shuffled = gather_rows(self.momentum_encoder(everyone[order[first : first + len(view)]]))  # (G, D)
        keys = torch.empty_like(shuffled)
        keys[order] = shuffled
        return keys[first : first + len(view)]


@register("method", "momentum_contrast")
@dataclass
class MomentumContrastConfig:
    """Settings of `MomentumContrast`.

    Attributes:
        projector, predictor: The heads; `predictor=null` for none.
        queue_size: Number of past keys; 0 for none.
        batch_keys: Contrast with the keys of the global batch as well.
        momentum: Of the momentum encoder at the start of training.
        momentum_schedule: "cosine" rises to 1 at the end, "constant" stays.
        symmetric: Each global view is a target; otherwise only the first view is.
        num_global_views: How many of the views are global.
        shuffle_bn: Embed the keys in another order, over all devices and splits, than the queries.
        bn_splits: Batch norm over this many parts of the batch of a device, in place of as many devices.
    """

    projector: ProjectorConfig = field(default_factory=ProjectorConfig)
    predictor: PredictorConfig | None = field(default_factory=PredictorConfig)
    queue_size: int = 4096
    batch_keys: bool = False
    momentum: float = 0.99
    momentum_schedule: str = "cosine"
    symmetric: bool = True
    num_global_views: int = 2
    shuffle_bn: bool = False
    bn_splits: int = 1

    @property
    def has_negatives(self) -> bool:
        """Whether a loss has anything to contrast with."""
        return self.batch_keys or self.queue_size > 0

    def problems(self, prefix: str) -> list[str]:
        """Name each setting that cannot be."""
        found = []
        if self.queue_size < 0:
            found.append(f"{prefix}.queue_size={self.queue_size} must be 0 (none) or more")
        if not 0 <= self.momentum <= 1:
            found.append(f"{prefix}.momentum={self.momentum} must be between 0 and 1")
        if self.momentum_schedule not in ("cosine", "constant"):
            found.append(f"{prefix}.momentum_schedule={self.momentum_schedule} must be one of cosine, constant")
        if self.num_global_views < 2:
            found.append(f"{prefix}.num_global_views={self.num_global_views} must be at least 2")
        if self.bn_splits < 1:
            found.append(f"{prefix}.bn_splits={self.bn_splits} must be at least 1")
        return found

    def build(self, backbone: Backbone, loss: Loss) -> MomentumContrast:
        """Return the method, which trains `backbone` with `loss`."""
        return MomentumContrast(backbone, loss, self)
