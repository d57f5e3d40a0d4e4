"""Tests of a training step: read the queue, compute the loss, enqueue, then update the momentum encoder."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eztorch_sce.losses.pairs import Loss
from eztorch_sce.losses.sce import SCEConfig
from eztorch_sce.methods.momentum_contrast import MomentumContrast, MomentumContrastConfig
from eztorch_sce.models.backbones.small import SmallR2Plus1DConfig
from eztorch_sce.models.heads import ProjectorConfig
from eztorch_sce.models.momentum import MomentumEncoder, cosine_momentum
from eztorch_sce.models.queue import Queue


class Recorder(nn.Module):
    """A loss that records its arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, query: Tensor, key: Tensor, negatives: Tensor | None = None) -> Tensor:
        assert negatives is not None
        self.calls.append((query.detach(), key.detach(), negatives.clone()))
        return (query * key).sum()


def build_method(loss: Loss, **settings: Any) -> MomentumContrast:
    torch.manual_seed(0)
    config = MomentumContrastConfig(projector=ProjectorConfig(hidden_dim=16, output_dim=8), queue_size=12, **settings)
    return config.build(SmallR2Plus1DConfig(width=4, num_blocks=1).build(), loss)


def views(count: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(4, 3, 2, 32, 32, generator=generator) for _ in range(count)]


@pytest.mark.parametrize(("symmetric", "num_views", "terms"), [(True, 2, 2), (True, 6, 10), (False, 2, 1)])
def test_every_target_is_compared_with_all_other_views(symmetric: bool, num_views: int, terms: int) -> None:
    loss = Recorder()
    build_method(loss, symmetric=symmetric)(views(num_views))
    assert len(loss.calls) == terms
    for query, key, _ in loss.calls:  # no view is compared with itself
        assert not torch.equal(query, key)


def test_the_loss_reads_the_queue_before_the_keys_of_its_step_are_enqueued() -> None:
    loss = Recorder()
    contrast = build_method(loss)
    assert contrast.queue is not None
    before = contrast.queue.keys.clone()
    contrast(views(2))
    assert all(torch.equal(negatives, before) for _, _, negatives in loss.calls)
    contrast.after_step(progress=0)
    torch.testing.assert_close(contrast.queue.keys[:8], torch.cat([loss.calls[0][1], loss.calls[1][1]]))
    assert torch.equal(contrast.queue.keys[8:], before[8:])


def test_the_queue_wraps_around_and_accepts_any_number_of_keys() -> None:
    queue = Queue(size=5, dim=2)
    for start in (0, 3, 6):
        queue.enqueue(torch.arange(start, start + 3, dtype=torch.float32)[:, None].expand(-1, 2))
    assert sorted(queue.keys[:, 0].tolist()) == [4, 5, 6, 7, 8]
    queue.enqueue(torch.arange(100, 112, dtype=torch.float32)[:, None].expand(-1, 2))
    assert sorted(queue.keys[:, 0].tolist()) == [107, 108, 109, 110, 111]
    queue.enqueue(torch.full((1, 2), 200.0))
    assert sorted(queue.keys[:, 0].tolist()) == [108, 109, 110, 111, 200]  # the oldest key was replaced


def test_a_loss_may_be_differentiated_after_its_keys_are_enqueued() -> None:
    queue = Queue(size=6, dim=4)
    query, key = (F.normalize(torch.randn(2, 4), dim=1) for _ in range(2))
    query.requires_grad_()
    negatives = queue.keys.clone()
    loss = (query @ queue.keys.T).exp().sum()  # autograd keeps the queue for the backward pass
    queue.enqueue(key)
    loss.backward()
    torch.testing.assert_close(query.grad, (query @ negatives.T).exp() @ negatives)
    assert torch.equal(queue.keys[:2], key)


def test_a_queue_names_the_shape_of_keys_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"keys must be \(N, 4\), like the queue: got \(2, 8\)"):
        Queue(size=6, dim=4).enqueue(torch.zeros(2, 8))
    with pytest.raises(ValueError, match=r"Queue\(0, 4\): size and dim must be at least 1"):
        Queue(size=0, dim=4)


def test_the_momentum_encoder_averages_any_network() -> None:
    online = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    slow: Any = MomentumEncoder(online)
    inputs = torch.randn(4, 3)
    torch.testing.assert_close(slow(inputs), online(inputs))
    bias = online[0].get_parameter("bias")
    start = bias.clone()
    with torch.no_grad():
        bias.add_(1)
    slow.update(online, momentum=0.75)
    torch.testing.assert_close(slow.encoder[0].bias, start + 0.25)
    with pytest.raises(ValueError, match=r"has no parameter 0\.bias: .*without a wrapper such as DistributedDataPar"):
        slow.update(nn.Sequential(online), momentum=0.75)


def test_evaluation_mode_leaves_the_queue_alone() -> None:
    contrast = build_method(SCEConfig().build()).eval()
    assert contrast.queue is not None
    before = contrast.queue.keys
    contrast(views(2))
    assert contrast.queue.keys is before


def test_a_resumed_queue_continues_at_its_saved_position() -> None:
    saved, resumed = Queue(size=5, dim=2), Queue(size=5, dim=2)
    saved.enqueue(torch.full((3, 2), 1.0))
    resumed.load_state_dict(saved.state_dict())
    for number in (2.0, 3.0):
        resumed.enqueue(torch.full((2, 2), number))
    assert resumed.keys[:, 0].tolist() == [3, 3, 1, 2, 2]


def test_the_momentum_encoder_starts_as_a_copy_receives_no_gradient_and_follows_the_online_encoder() -> None:
    contrast = build_method(SCEConfig().build(), momentum=0.75, momentum_schedule="constant")
    slow = list(contrast.momentum_encoder.parameters())
    fast = [*contrast.online.backbone.parameters(), *contrast.online.projector.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(slow, fast, strict=True))
    contrast(views(2)).loss.backward()
    assert all(p.grad is None for p in slow)
    with torch.no_grad():
        for parameter in fast:
            parameter.add_(1)
    expected = [a + 0.25 for a in copy.deepcopy(slow)]
    contrast.after_step(progress=0.5)
    torch.testing.assert_close(slow, expected)


def test_cosine_momentum_rises_from_its_start_to_one() -> None:
    assert cosine_momentum(0.99, 0) == pytest.approx(0.99)
    assert cosine_momentum(0.99, 0.5) == pytest.approx(0.995)
    assert cosine_momentum(0.99, 1) == 1


def test_every_online_parameter_receives_a_gradient() -> None:
    contrast = build_method(SCEConfig().build())
    contrast(views(2)).loss.backward()
    assert all(p.grad is not None for p in contrast.online.parameters())


def test_heads_have_the_shapes_of_the_papers() -> None:
    projector = ProjectorConfig().build(2048)
    assert [m.out_features for m in projector if isinstance(m, nn.Linear)] == [4096, 4096, 256]
    assert all(m.bias is None for m in projector if isinstance(m, nn.Linear))
    assert [m.affine for m in projector if isinstance(m, nn.BatchNorm1d)] == [True, True, False]
    cifar = ProjectorConfig(hidden_dim=512, num_hidden=1, output_dim=128, output_norm=False).build(512)
    assert [(m.in_features, m.out_features, m.bias is not None) for m in cifar if isinstance(m, nn.Linear)] == [
        (512, 512, False),
        (512, 128, True),
    ]
