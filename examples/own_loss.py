"""Your own loss, with a queue and without it: `eztorch-sce pretrain plugins=./own_loss.py loss=my_loss`."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import eztorch_sce as sce
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MyLoss(nn.Module):
    """Classify the key of a query among the keys of a queue, or without a queue among those of the batch."""

    def forward(self, query: Tensor, key: Tensor, negatives: Tensor | None = None) -> Tensor:
        others = key if negatives is None else torch.cat([key, negatives])  # row i is the key of query i
        return F.cross_entropy(query @ others.T / 0.2, torch.arange(len(query), device=query.device))


@sce.register("loss", "my_loss")
@dataclass
class MyLossConfig:
    """A loss without settings; each field added here can be set by `loss.<field>=<value>`."""

    def build(self) -> MyLoss:
        return MyLoss()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sce.write_moving_shapes(Path(folder), sce.MovingShapes(num_train=32, num_test=8, num_scenes=1), num_processes=1)
        data = sce.DataConfig(root=folder, batch_size=16, num_frames=8, clip_s=0.5)
        for method in (sce.MomentumContrastConfig(queue_size=64), sce.SimCLRConfig()):
            config = sce.PretrainConfig(data=data, views=sce.views("motion", size=32), method=method)
            config.trainer.max_epochs, config.run.dir = 1, f"{folder}/{type(method).__name__}"
            print(type(method).__name__, sce.pretrain(config, loss=MyLoss()).metrics["loss"])
