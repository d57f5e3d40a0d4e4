"""Your own loss in every command: plain PyTorch on queries, keys and negatives, and a config that builds it."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from eztorch_sce import api
from eztorch_sce.config.compose import compose
from eztorch_sce.curation.synthetic import MovingShapes, write_moving_shapes
from eztorch_sce.registry import register
from torch import Tensor, nn


class MyLoss(nn.Module):
    """Classify the key of a query, the first column, among the keys in the queue."""

    def forward(self, query: Tensor, key: Tensor, negatives: Tensor) -> Tensor:
        """Return the batch mean from unit vectors (B, D), (B, D) and (K, D)."""
        similarities = torch.cat([(query * key).sum(dim=1, keepdim=True), query @ negatives.T], dim=1)  # (B, 1 + K)
        return F.cross_entropy(similarities / 0.2, query.new_zeros(len(query), dtype=torch.long))


@register("loss", "my_loss")
@dataclass
class MyLossConfig:
    """A loss without settings; each field added here can be set by `loss.<field>=<value>`."""

    def build(self) -> MyLoss:
        """Return the loss."""
        return MyLoss()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write_moving_shapes(Path(folder), MovingShapes(num_train=32, num_test=8, num_scenes=1), num_processes=1)
        data = [f"data.root={folder}", "data.num_frames=8", "data.clip_s=0.5", "data.batch_size=16"]
        training = ["views=motion", "views.*.size=32", "backbone.width=8", "trainer.max_epochs=1"]
        report = api.pretrain(compose("pretrain", ["loss=my_loss", *data, *training, f"run.dir={folder}/run"]))
        print(report.metrics)
