"""A loop of your own on one process, or on several: `torchrun --nproc-per-node 2 own_loop.py`."""

import os
import tempfile

import eztorch_sce as sce
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

EPOCHS = 4

if __name__ == "__main__":
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1  # set by torchrun
    if several:
        distributed.init_process_group("gloo")
    with tempfile.TemporaryDirectory() as folder:
        shapes = sce.MovingShapes(num_train=32, num_test=16, num_scenes=1)
        sce.write_moving_shapes(folder, shapes)  # the same videos in every process
        data = sce.DataConfig(root=folder, num_frames=4, clip_s=0.5, batch_size=16, num_workers=0)
        loader = sce.training_loader(data, sce.views("motion", size=32))  # the processes share each batch

        torch.manual_seed(0)
        backbone = sce.SmallR2Plus1DConfig(width=4, num_blocks=1).build()
        method = sce.MomentumContrast(backbone, sce.SCELoss())
        model = DistributedDataParallel(method) if several else method
        optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
        for epoch in range(EPOCHS):
            for batch in loader:
                output = model(loader.augment(batch).views)
                optimizer.zero_grad()
                output.loss.backward()
                optimizer.step()
                method.after_step(progress=epoch / EPOCHS)
        train, test = sce.extract_splits(backbone, data, loader.spec)  # each process embeds a part of the records
        print(f"records {len(train.features)}, kNN {sce.knn_accuracy(train, test)['knn_top1']:.3f}")
