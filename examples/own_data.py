"""Your own data: a class with four methods, here around videos in memory."""

import tempfile

import numpy as np
import numpy.typing as npt
from eztorch_sce import DataConfig, KnnConfig, PretrainConfig, RunConfig, TrainerConfig, knn, pretrain


class Videos:
    """Videos of a line that falls or rises. If they were in a file, `read` would open it, once in each process."""

    classes, fps = ("falling", "rising"), 10.0  # optional

    def __init__(self, frames: npt.NDArray[np.uint8]) -> None:
        self.frames = frames  # (N, C, T, H, W)

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, index: int) -> npt.NDArray[np.uint8]:
        return np.asarray(self.frames[index])

    def label(self, index: int) -> int:
        return index % 2

    def name(self, index: int) -> str:
        return f"video-{index}"


if __name__ == "__main__":
    frames, t = np.random.default_rng(0).integers(0, 100, (32, 3, 12, 32, 32), dtype=np.uint8), np.arange(12)
    frames[::2, :, t, 2 * t] = frames[1::2, :, t, 30 - 2 * t] = 255
    with tempfile.TemporaryDirectory() as tmp:
        data, train, test = DataConfig(batch_size=8, num_frames=4), Videos(frames[:24]), Videos(frames[24:])
        config = PretrainConfig(data=data, trainer=TrainerConfig(max_epochs=1), run=RunConfig(dir=f"{tmp}/pretrain"))
        weights = str(pretrain(config, data=train, test_data=test).run_dir)
        print(knn(KnnConfig(weights=weights, run=RunConfig(dir=f"{tmp}/knn")), data=train, test_data=test).metrics)
