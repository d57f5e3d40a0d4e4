"""Self-supervised training without Lightning: the complete loop in one file, on generated videos, in about a minute."""

import tempfile
from pathlib import Path

import torch
from eztorch_sce.augment.views import Views
from eztorch_sce.config.compose import compose
from eztorch_sce.config.parts import EvaluationViewsConfig
from eztorch_sce.curation.synthetic import MovingShapes, write_moving_shapes
from eztorch_sce.data.dataset import EpochSampler, TrainingClips
from eztorch_sce.data.loading import clip_loader, input_spec
from eztorch_sce.evaluation.features import extract_features, record_views
from eztorch_sce.evaluation.knn import KnnConfig
from eztorch_sce.types import InputSpec

EPOCHS, BATCH_SIZE, LR, CPU = 30, 32, 0.01, torch.device("cpu")

with tempfile.TemporaryDirectory() as folder:
    write_moving_shapes(Path(folder), MovingShapes(num_train=256, num_test=128), num_processes=2)
    config = compose("pretrain", ["recipe=demo", f"data.root={folder}"])
    splits = config.data.open_with_test(config.seed)
    train, test = splits.train, splits.labeled_test
    spec = input_spec(config.data, train, InputSpec(), config.views[0])
    clips = TrainingClips(train, config.views, spec, config.data.build_decoder(), config.seed, canvas=None)
    sampler = EpochSampler(len(train.records), config.seed, shuffle=True)
    loader = clip_loader(clips, sampler, BATCH_SIZE, num_workers=2, drop_last=True)

    torch.manual_seed(config.seed)
    backbone = config.backbone.build()
    method = config.method.build(backbone, config.loss.build())  # momentum contrast with the loss of SCE
    augment = Views(config.views, config.seed, canvas=None)
    optimizer = config.optimizer.build(method.parameters(), LR)

    def knn_accuracy() -> float:
        """Classify the test videos by their nearest train videos."""
        clips = EvaluationViewsConfig(num_clips=2, num_crops=1)
        splits = [record_views(config.data, clips, spec, split, "features") for split in (train, test)]
        train_bank, test_bank = [extract_features(backbone, views, CPU) for views in splits]
        return KnnConfig().evaluate(train_bank, test_bank, CPU).metrics["knn_top1"]

    print(f"untrained   kNN {knn_accuracy():.3f} (chance 0.125)")
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        method.train()
        for batch in loader:
            output = method(augment(batch).views)
            output.loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            method.after_step(progress=epoch / EPOCHS)  # enqueue the keys, move the momentum encoder
        print(f"epoch {epoch + 1}/{EPOCHS}  loss {output.loss.item():.3f}")
    print(f"pretrained  kNN {knn_accuracy():.3f}")
