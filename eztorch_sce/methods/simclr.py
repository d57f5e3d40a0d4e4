"""SimCLR: one encoder, every view contrasted with the rest of the batch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from eztorch_sce.distributed import gather_with_offset
from eztorch_sce.errors import ConfigError
from eztorch_sce.losses.pairs import Loss, ViewPairs
from eztorch_sce.methods.base import check_loss, check_views
from eztorch_sce.methods.loss_calls import module_within, negatives_problems, over_pairs_of, takes_unit_vectors
from eztorch_sce.models.backbones.base import Backbone, as_backbone
from eztorch_sce.models.encoder import Encoder, embed_views
from eztorch_sce.models.heads import ProjectorConfig
from eztorch_sce.registry import register
from eztorch_sce.settings import Settings, invalid_settings, setting
from eztorch_sce.types import StepOutput


class SimCLR(nn.Module):
    """Use every global view as query and as key; gradients flow through both, across all processes.

    Source: Chen et al., ICML 2020, arXiv:2002.05709.

    Args:
        backbone: The network to train.
        loss: The loss of pairs of views; `NTXentLoss` in the paper.
        config: The projector and the number of global views.

    Raises:
        ConfigError: If a setting is invalid, or if the loss needs a queue.
    """

    def __init__(self, backbone: nn.Module, loss: Loss, config: "SimCLRConfig | None" = None) -> None:
        super().__init__()
        config = SimCLRConfig() if config is None else config
        backbone = as_backbone(backbone)
        check_loss(loss)
        if problems := invalid_settings(config, "method") or negatives_problems(loss, "", "batch_keys"):
            raise ConfigError(problems)
        projector = config.projector.build(backbone.num_features)
        self.online = Encoder(backbone, projector, normalize=takes_unit_vectors(loss))
        self.loss, self.module_of_loss = loss, module_within(loss)
        self.over_pairs = over_pairs_of(loss)
        self.config = config
        self.with_metrics = True

    @property
    def backbone(self) -> Backbone:
        """The backbone to keep after training."""
        return self.online.backbone

    def forward(self, views: list[Tensor]) -> StepOutput:
        """Return the loss of one batch from normalized views (B, C, T, S, S) or (B, C, S, S), global views first."""
        check_views(views, self.config.num_global_views, self)
        num_targets = self.config.num_global_views
        queries = [embedded.z for embedded in embed_views(self.online, views, num_targets)]  # each (B, D)
        keys = queries[:num_targets]
        pairs = [(i, j) for j in range(num_targets) for i in range(len(queries)) if i != j]
        all_keys, offset = gather_with_offset(torch.stack(keys, dim=1))  # (G, V, D)
        batch_keys = [all_keys.transpose(0, 1)] * num_targets  # every key view is contrasted with the keys of all views
        compared = ViewPairs(queries, keys, pairs, None, batch_keys, offset, self.with_metrics)
        loss, metrics = self.over_pairs(compared)
        return StepOutput(loss, metrics, keys[0].detach())

    if TYPE_CHECKING:
        __call__ = forward  # that of nn.Module takes and returns Any

    def after_step(self, progress: float) -> None:
        """Do nothing: there is no momentum encoder."""


@register("method", "simclr")
@dataclass
class SimCLRConfig(Settings):
    """SimCLR: one encoder, every view contrasted with the rest of the batch."""

    projector: ProjectorConfig = setting(ProjectorConfig(), help="Head from backbone features to embeddings.")
    num_global_views: int = setting(2, at_least=2, help="Number of global views; further views are queries only.")

    has_negatives = True  # the rest of the batch

    def build(self, backbone: Backbone, loss: Loss) -> SimCLR:
        """Return the method that trains `backbone` with `loss`."""
        return SimCLR(backbone, loss, self)
