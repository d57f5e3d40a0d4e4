"""Your own evaluation, in Python and as a command: `eztorch-sce centroid plugins=./own_evaluation.py weights=RUN`."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import eztorch_sce as sce
import torch


@sce.register("evaluation", "centroid")
@dataclass
class CentroidConfig(sce.EvaluationConfig):
    """Classify by the nearest class mean of the train features; `eztorch-sce centroid --help` shows this line."""

    norm: float = sce.setting(2.0, at_least=1, help="Order of the norm that measures distances.")

    def evaluate(self, train: sce.FeatureBank, test: sce.FeatureBank, device: torch.device) -> sce.Scores:
        """Return the accuracy, also of each test record, and the predictions; features are (N, F), and labels (N,)."""
        classes = range(len(train.classes))
        means = torch.stack([train.features[train.labels == label].mean(dim=0) for label in classes])
        distance, nearest = torch.cdist(test.features.to(device), means.to(device), p=self.norm).cpu().min(dim=1)
        hits = (nearest == test.labels).float()
        predictions = sce.Predictions(nearest, score=-distance)  # the closer, the more confident
        metrics, by_record = {"centroid_top1": float(hits.mean())}, {"centroid_top1": hits}
        return sce.Scores(metrics, by_record=by_record, predictions=predictions)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        shapes = sce.MovingShapes(num_train=32, num_test=16, num_scenes=1)
        sce.write_moving_shapes(Path(folder), shapes, num_processes=1)
        data = sce.DataConfig(root=folder, batch_size=16, num_frames=8, clip_s=0.5)
        views, backbone = sce.views("motion", size=32), sce.SmallR2Plus1DConfig(width=8)
        config = sce.PretrainConfig(data=data, views=views, backbone=backbone)
        config.trainer.max_epochs, config.run.dir = 1, f"{folder}/pretrained"
        sce.pretrain(config)
        evaluation = CentroidConfig(data=data, weights=config.run.dir, run=sce.RunConfig(dir=f"{folder}/centroid"))
        print(sce.evaluate(evaluation).metrics)
