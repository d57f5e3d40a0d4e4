"""Your own callbacks and loggers of Lightning in a pretraining: stop early, and send metrics where you want them."""

import tempfile
from pathlib import Path
from typing import Any

import eztorch_sce as sce
import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger


class StopWhenAligned(pl.Callback):
    """Stop after the first epoch in which queries and keys are closer than a distance."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = bool(trainer.callback_metrics["alignment"] < 1.8)


class PrintLogger(Logger):
    """Print the loss of each logged step; a logger of Weights & Biases or MLflow is passed in the same way."""

    name, version = "print", 0

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if "loss" in metrics:
            print(f"step {step}: loss {metrics['loss']:.3f}")

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Ignore them: the run directory holds config.yaml."""


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sce.write_moving_shapes(Path(folder), sce.MovingShapes(num_train=32, num_test=8, num_scenes=1), num_processes=1)
        data = sce.DataConfig(root=folder, num_frames=4, clip_s=0.5, batch_size=16)
        config = sce.PretrainConfig(data=data, views=sce.views("motion", size=32), backbone="r2plus1d_small")
        config.trainer.max_epochs, config.run.dir, config.run.log_every_n_steps = 20, f"{folder}/run", 1
        print(sce.pretrain(config, callbacks=[StopWhenAligned()], loggers=[PrintLogger()]).metrics)
