"""Self-supervised training in a loop of your own, without Lightning, on generated videos, in under a minute."""

import tempfile

import eztorch_sce as sce
import torch

EPOCHS = 15

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sce.write_moving_shapes(folder, sce.MovingShapes(num_train=256, num_test=128), num_processes=2)
        data = sce.DataConfig(root=folder, num_frames=8, clip_s=0.5, batch_size=16, num_workers=2)
        loader = sce.training_loader(data, sce.views("motion", size=32))  # each iteration is a new epoch

        torch.manual_seed(0)
        backbone = sce.SmallR2Plus1DConfig(width=16, num_blocks=1).build()
        settings = sce.MomentumContrastConfig(predictor=None, queue_size=512, momentum=0.9)
        method = sce.MomentumContrast(backbone, sce.SCELoss(temperature=0.2, target_temperature=0.1), settings)
        optimizer = torch.optim.AdamW(method.parameters(), lr=0.003, weight_decay=0.01)

        def accuracy() -> float:
            """Classify the test videos by their nearest train videos."""
            train, test = sce.extract_splits(backbone, data, loader.spec, num_clips=2)
            return sce.knn_accuracy(train, test)["knn_top1"]

        print(f"untrained   kNN {accuracy():.3f} (chance 0.125)")
        for epoch in range(EPOCHS):
            for batch in loader:
                output = method(loader.augment(batch).views)
                output.loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                method.after_step(progress=epoch / EPOCHS)  # moves the momentum encoder
            print(f"epoch {epoch + 1}/{EPOCHS}  loss {output.loss.item():.3f}")
        print(f"pretrained  kNN {accuracy():.3f}")
