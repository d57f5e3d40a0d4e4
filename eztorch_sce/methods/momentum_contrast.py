"""Momentum contrast: MoCo, ReSSL or SCE, depending on the loss."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eztorch_sce.distributed import gather_with_offset, same_permutation
from eztorch_sce.errors import ConfigError
from eztorch_sce.losses.pairs import Loss, ViewPairs
from eztorch_sce.methods.base import check_loss, check_views
from eztorch_sce.methods.loss_calls import module_within, negatives_problems, over_pairs_of, takes_unit_vectors
from eztorch_sce.models.backbones.base import Backbone, as_backbone
from eztorch_sce.models.batch_norm import split_batch_norms
from eztorch_sce.models.encoder import Encoder, embed_views
from eztorch_sce.models.heads import PredictorConfig, ProjectorConfig
from eztorch_sce.models.momentum import MomentumEncoder, cosine_momentum
from eztorch_sce.models.queue import Queue
from eztorch_sce.registry import register
from eztorch_sce.settings import Settings, invalid_settings, setting
from eztorch_sce.types import StepOutput


class MomentumContrast(nn.Module):
    """Contrast queries of the online encoder with keys of the momentum encoder.

    Negatives are a queue of past keys, the other keys of the batch, or both.

    Global views come first. Symmetric: each global view is the target of all other views. Asymmetric: the first view
    is the target of the others. Local views are queries only.

    Source: He et al., CVPR 2020, arXiv:1911.05722; with `SCELoss`: Denize et al., WACV 2023, arXiv:2111.14585.

    Args:
        backbone: The network to train; see `as_backbone` for modules that are no `Backbone`.
        loss: The loss of pairs of queries and keys.
        config: Heads, queue and momentum.

    Raises:
        ConfigError: If a setting is invalid, or if the loss does not fit the negatives of the method.
    """

    waiting: Float[Tensor, "N V D"]  # keys of the batches of a step, in the order of the records

    def __init__(self, backbone: nn.Module, loss: Loss, config: "MomentumContrastConfig | None" = None) -> None:
        super().__init__()
        config = MomentumContrastConfig() if config is None else config
        queue_size = 4096 if config.queue_size is None else config.queue_size
        backbone = as_backbone(backbone)
        check_loss(loss)
        queue, batch_keys = f"queue_size={queue_size}" * bool(queue_size), "batch_keys=true" * config.batch_keys
        if problems := invalid_settings(config, "method") or negatives_problems(loss, queue, batch_keys):
            raise ConfigError(problems)

        width, dim = backbone.num_features, config.projector.output_dim
        self.num_targets = config.num_global_views if config.symmetric else 1
        predictor = None if config.predictor is None else config.predictor.build(width, dim)
        self.online = Encoder(backbone, config.projector.build(width), predictor, takes_unit_vectors(loss))
        if config.bn_splits > 1:
            split_batch_norms(self.online, config.bn_splits)
        self.momentum_encoder = MomentumEncoder(self.online)
        self.queue = Queue(queue_size, dim, takes_unit_vectors(loss)) if queue_size else None
        self.register_buffer("waiting", torch.empty(0, self.num_targets, dim), persistent=False)
        self.loss, self.module_of_loss = loss, module_within(loss)
        self.over_pairs = over_pairs_of(loss)
        self.config = config
        self.momentum = 0.99 if config.momentum is None else config.momentum
        self.with_metrics = True

    @property
    def backbone(self) -> Backbone:
        """The online backbone, which the papers evaluate."""
        return self.online.backbone

    def forward(self, views: list[Tensor]) -> StepOutput:
        """Return the loss of one batch from normalized views (B, C, T, S, S) or (B, C, S, S), global views first.

        In training mode, the keys wait for `after_step`, so that the batches of a step meet the same queue.
        """
        check_views(views, self.config.num_global_views, self)
        num_targets = self.num_targets
        keys = [self._keys(view) for view in views[:num_targets]]  # each (B, D)
        first_query = 0 if num_targets > 1 else 1
        embeddings = embed_views(self.online, views[first_query:], self.config.num_global_views - first_query)
        queries = [embedded.q for embedded in embeddings]  # each (B, D)
        pairs = [(i, j) for j in range(num_targets) for i in range(len(queries)) if i + first_query != j]

        negatives, batch_keys, offset = None, None, 0
        if self.config.has_negatives:
            all_keys, offset = gather_with_offset(torch.stack(keys, dim=1))  # (G, V, D): one exchange for all views
        if self.config.batch_keys:
            batch_keys = list(all_keys.unbind(dim=1))
        if self.queue is not None:
            negatives = self.queue.keys
        compared = ViewPairs(queries, keys, pairs, negatives, batch_keys, offset, self.with_metrics)
        loss, metrics = self.over_pairs(compared)
        if self.queue is not None:
            if self.training:
                self.waiting = torch.cat([self.waiting, all_keys.to(self.waiting)])
            metrics["queue_age"] = torch.tensor(len(self.queue.keys) / all_keys[:, :, 0].numel())  # steps
        return StepOutput(loss, metrics, keys[0])

    if TYPE_CHECKING:
        __call__ = forward  # that of nn.Module takes and returns Any

    def after_step(self, progress: float) -> None:
        """Enqueue the keys of the step and update the momentum encoder, at `progress` in [0, 1] of training."""
        if self.queue is not None:
            self.queue.enqueue(self.waiting.transpose(0, 1).flatten(0, 1))
            self.waiting = self.waiting[:0]
        self.momentum_encoder.update(self.online, self.momentum_at(progress))

    def momentum_at(self, progress: float) -> float:
        """Return the momentum of the update at `progress` in [0, 1] of training."""
        is_cosine = self.config.momentum_schedule == "cosine"
        return cosine_momentum(self.momentum, progress) if is_cosine else self.momentum

    @torch.no_grad()
    def _keys(self, view: Tensor) -> Float[Tensor, "B D"]:
        """Embed a global view with the momentum encoder.

        With `shuffle_bn`, the global batch is embedded in a random order, so batch norm cannot leak which key matches.
        """
        if not self.config.shuffle_bn:
            keys: Tensor = self.momentum_encoder(view)
            return keys
        channels_last = view.stride(1) == 1
        all_clips, first = gather_with_offset(view.movedim(1, -1) if channels_last else view)  # as they are in memory
        order = same_permutation(len(all_clips), view.device)
        shuffled_clips = all_clips[order[first : first + len(view)]]
        own_keys = self.momentum_encoder(shuffled_clips.movedim(-1, 1) if channels_last else shuffled_clips)
        shuffled, _ = gather_with_offset(own_keys)  # (G, D)
        keys = torch.empty_like(shuffled)
        keys[order] = shuffled
        return keys[first : first + len(view)]


@dataclass
class MomentumConfig(Settings):
    """Settings of the methods with a momentum encoder."""

    projector: ProjectorConfig = setting(ProjectorConfig(), help="Head from backbone features to embeddings.")
    predictor: PredictorConfig | None = setting(
        PredictorConfig(), help="Head from online projections to predicted keys; null for none."
    )
    momentum: float | None = setting(
        None,
        at_least=0,
        at_most=1,
        help="Momentum of the key encoder at the start of training; null chooses from the length of the training, or "
        "is 0.99.",
    )
    momentum_schedule: str = setting(
        "cosine",
        choices=("cosine", "constant"),
        help="Schedule of the momentum; cosine raises it to 1 at the end of training.",
    )
    symmetric: bool = setting(True, help="Use every global view as a target, not only the first view.")
    num_global_views: int = setting(2, at_least=2, help="Number of global views; further views are queries only.")


@register("method", "momentum_contrast")
@dataclass
class MomentumContrastConfig(MomentumConfig):
    """Momentum contrast: keys of a momentum encoder and a queue, as in MoCo, ReSSL and SCE."""

    queue_size: int | None = setting(
        None,
        at_least=0,
        help="Number of past keys used as negatives; 0 for no queue; null chooses from the number of records, or is "
        "4096.",
    )
    batch_keys: bool = setting(False, help="Use the keys of the global batch as further negatives.")
    shuffle_bn: bool = setting(
        False, help="Shuffle the batch before the key encoder so batch norm cannot leak which key matches."
    )
    bn_splits: int = setting(
        1, at_least=1, help="Number of batch chunks that batch norm normalizes separately, as separate devices would."
    )

    @property
    def has_negatives(self) -> bool:
        """Whether the method provides negatives."""
        return self.batch_keys or self.queue_size != 0

    def build(self, backbone: Backbone, loss: Loss) -> MomentumContrast:
        """Return the method that trains `backbone` with `loss`."""
        return MomentumContrast(backbone, loss, self)
