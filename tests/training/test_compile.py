"""Test of `trainer.compile=true` with the compiler of this machine, in a process without the checks of shapes."""

import json
import shutil
import subprocess
import sys

import pytest

SCRIPT = """
import json
import torch
from torch import nn
from torch._dynamo.utils import counters
from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.augment.views import Views
from eztorch_sce.losses.sce import SCELoss
from eztorch_sce.methods.momentum_contrast import MomentumContrast, MomentumContrastConfig
from eztorch_sce.models.backbones.base import as_backbone
from eztorch_sce.models.heads import ProjectorConfig
from eztorch_sce.optim.schedules import ScheduleConfig
from eztorch_sce.optim.sgd import SGDConfig
from eztorch_sce.training.config import TrainerConfig
from eztorch_sce.training.device import prepared
from eztorch_sce.training.pretrain_module import PretrainModule

torch.set_num_threads(1)
frames = torch.randint(0, 256, (4, 3, 1, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

def losses(compiled):
    counters.clear()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    config = MomentumContrastConfig(ProjectorConfig(num_hidden=0, output_dim=4, output_norm=False), None, queue_size=8)
    method = MomentumContrast(as_backbone(network, num_frames=1, size=16), SCELoss(), config)
    views = Views([ViewConfig(size=16), ViewConfig(size=16)])
    module = PretrainModule(method, views, SGDConfig(), ScheduleConfig(), batch_size=4)
    names, found, graphs = list(module.state_dict()), [], []
    optimizer = torch.optim.SGD(method.parameters(), lr=0.01)
    with prepared(module, TrainerConfig(accelerator="cpu", precision="32-true", compile=compiled)):
        for step in range(3):
            loss = method(module.augmentation(frames)).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            method.after_step(step / 2)
            found.append(loss.item())
            graphs.append(counters["stats"]["unique_graphs"])
        assert list(module.state_dict()) == names
    assert all(network._compiled_call_impl is None for network in module.modules())
    return found, graphs, sum(counters["graph_break"].values())

print(json.dumps([losses(False), losses(True)]))
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_a_compiled_training_has_the_same_losses_without_breaks_or_recompilation() -> None:
    process = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, process.stderr
    (plain, none, _), (compiled, graphs, breaks) = json.loads(process.stdout.splitlines()[-1])
    assert compiled == pytest.approx(plain, rel=1e-4)
    assert (none, breaks) == ([0, 0, 0], 0)
    assert graphs == [3, 3, 3]  # views, online and momentum encoder
