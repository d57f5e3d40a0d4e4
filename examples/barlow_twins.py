"""Your own method, with its own loss: `eztorch-sce pretrain plugins=./barlow_twins.py method=barlow_twins`."""

from dataclasses import dataclass
from pathlib import Path

import eztorch_sce as sce
from torch import Tensor, nn


class BarlowTwins(nn.Module):
    def __init__(self, backbone: sce.Backbone, projector: nn.Module) -> None:
        super().__init__()
        self.backbone, self.projector = backbone, projector

    def forward(self, views: list[Tensor]) -> sce.StepOutput:
        first, second = (self.projector(self.backbone(view)) for view in views)  # (B, D), normalized over the batch
        correlation = first.T @ second / len(first)
        invariance = (correlation.diagonal() - 1).square().sum()
        redundancy = correlation.square().sum() - correlation.diagonal().square().sum()
        return sce.StepOutput(invariance + 0.005 * redundancy, {"invariance": invariance.detach()}, first.detach())

    def after_step(self, progress: float) -> None: ...  # there is no momentum encoder to update


@sce.register("method", "barlow_twins")
@dataclass
class BarlowTwinsConfig:
    dim: int = sce.setting(64, at_least=2, help="Dimension of the projections.")
    num_global_views, has_own_loss = 2, True

    def build(self, backbone: sce.Backbone, loss: None) -> BarlowTwins:
        return BarlowTwins(backbone, sce.ProjectorConfig(output_dim=self.dim).build(backbone.num_features))


if __name__ == "__main__":
    sce.write_moving_shapes(Path("shapes"), sce.MovingShapes(num_train=32, num_test=8, num_scenes=1), num_processes=1)
    config = sce.PretrainConfig(data=sce.DataConfig(root="shapes"), trainer=sce.TrainerConfig(max_epochs=1))
    print(sce.pretrain(config, method=BarlowTwinsConfig(dim=32)).metrics)
