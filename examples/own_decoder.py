"""Your own decoder: `eztorch-sce pretrain plugins=./own_decoder.py data.decoder=whole data.root=videos`."""

from dataclasses import dataclass

import av
import eztorch_sce as sce
import numpy as np
import torch


@sce.register("decoder", "whole")
@dataclass
class WholeVideo:
    """Decode every frame of a video, and pick those shown at the requested times: slow, but short."""

    def build(self) -> sce.Decoder:  # the config, which has no settings, is also the decoder
        return self

    def probe(self, path: str) -> sce.MediaInfo:
        with av.open(path) as file:
            video = file.streams.video[0]
            fps = float(video.average_rate or 25)
            return sce.MediaInfo(video.frames / fps, fps, video.width, video.height, video.codec_context.name)

    def read(self, path: str, spans: sce.Spans, num_frames: int) -> list[sce.Clip]:
        duration_s, fps, *_ = self.probe(path)
        with av.open(path) as file:
            frames = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])  # (T, H, W, C)
        chosen = sce.choose_spans(spans, lambda: sce.Timing(duration_s, fps))
        rows = [[min(int(time_s * fps), len(frames) - 1) for time_s in sce.frame_times(s, num_frames)] for s in chosen]
        return [sce.Clip(torch.from_numpy(frames[row]).permute(3, 0, 1, 2), torch.tensor(row) / fps) for row in rows]


if __name__ == "__main__":
    sce.write_moving_shapes("shapes", sce.MovingShapes(num_train=8, num_test=8, num_scenes=1))
    for name in ("pyav", "whole"):
        data = sce.DataConfig(root="shapes", decoder=name, num_frames=8, clip_s=0.5, batch_size=8, num_workers=0)
        loader = sce.training_loader(data, sce.views("motion", size=32))
        print(name, loader.augment(next(iter(loader))).views[0][:, 0, 0, 0, 0])
