"""Tests common to all methods, and of each method against its formula."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eztorch_sce.losses.infonce import InfoNCEConfig
from eztorch_sce.losses.ntxent import NTXentConfig
from eztorch_sce.losses.sce import SCEConfig
from eztorch_sce.methods.base import Method
from eztorch_sce.methods.momentum_contrast import MomentumContrastConfig
from eztorch_sce.methods.momentum_predict import MomentumPredictConfig
from eztorch_sce.methods.simclr import SimCLRConfig
from eztorch_sce.models.backbones.small import SmallR2Plus1DConfig
from eztorch_sce.models.batch_norm import SplitBatchNorm, split_batch_norms
from eztorch_sce.models.classifier import Classifier
from eztorch_sce.models.encoder import Encoder, embed_views
from eztorch_sce.models.heads import ProjectorConfig
from eztorch_sce.registry import choices

PROJECTOR = ProjectorConfig(hidden_dim=16, output_dim=8)


def build(config: Any, loss: Any) -> Any:
    torch.manual_seed(0)
    return config.build(SmallR2Plus1DConfig(width=4, num_blocks=1).build(), loss.build())


def views(*sizes: int, batch: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, 3, 2, size, size, generator=generator) for size in sizes]


@pytest.mark.parametrize("name", choices("method"))
def test_a_method_takes_global_and_local_views_and_trains_every_online_parameter(name: str) -> None:
    method = build(choices("method")[name](projector=PROJECTOR), NTXentConfig() if name == "simclr" else SCEConfig())
    output = method(views(32, 32, 48))
    output.loss.backward()
    assert output.loss.isfinite()
    assert all(p.grad is not None for p in method.online.parameters())
    assert output.embeddings.shape == (4, 8)
    assert not any(value.requires_grad for value in output.metrics.values())
    assert isinstance(method, Method)
    before = [p.clone() for p in method.backbone.parameters()]
    method.after_step(0.5)
    assert all(torch.equal(a, b) for a, b in zip(before, method.backbone.parameters(), strict=True))


def test_simclr_equals_cross_entropy_over_both_views() -> None:
    method = build(SimCLRConfig(PROJECTOR), NTXentConfig(temperature=0.5))
    pair = views(32, 32)
    value = method(pair).loss
    z = torch.cat([method.online(view).z for view in pair])  # (2B, D): sample i is row i and row i + B
    logits = (z @ z.T / 0.5).masked_fill(torch.eye(8, dtype=torch.bool), -torch.inf)
    expected = F.cross_entropy(logits, torch.arange(8).roll(4))
    torch.testing.assert_close(value, expected)
    parameters = list(method.parameters())
    torch.testing.assert_close(torch.autograd.grad(value, parameters), torch.autograd.grad(expected, parameters))


def test_momentum_prediction_contrasts_within_the_batch_only() -> None:
    method = build(MomentumPredictConfig(PROJECTOR), InfoNCEConfig(temperature=0.2))
    pair = views(32, 32)
    value = method(pair).loss
    queries = [method.online(view).q for view in pair]
    keys = [method.momentum_encoder(view) for view in pair]
    labels = torch.arange(4)
    terms = [F.cross_entropy(queries[i] @ keys[1 - i].T / 0.2, labels) for i in (0, 1)]
    torch.testing.assert_close(value, torch.stack(terms).mean())
    assert method.queue is None


def test_local_views_of_one_size_share_a_forward_pass() -> None:
    backbone = SmallR2Plus1DConfig(width=4, num_blocks=1).build()
    shapes: list[torch.Size] = []
    backbone.register_forward_pre_hook(lambda _, arguments: shapes.append(arguments[0].shape))
    encoder = Encoder(backbone, PROJECTOR.build(backbone.num_features)).eval()
    crops = views(64, 64, 32, 48, 32)
    embedded = embed_views(encoder, crops, num_global=2)
    assert [shape[0] for shape in shapes] == [4, 4, 8, 4]
    for view, embeddings in zip(crops, embedded, strict=True):
        torch.testing.assert_close(embeddings.q, encoder(view).q)


def test_every_multi_crop_term_is_contrasted_with_the_whole_queue() -> None:
    """Six views give ten terms, each equal to the loss of its pair alone."""
    config = MomentumContrastConfig(PROJECTOR, queue_size=20)
    method = build(config, SCEConfig()).eval()
    six = views(32, 32, 32, 32, 48, 48)
    queue = method.queue.keys.clone()
    value = method(six).loss
    queries, keys = [method.online(view).q for view in six], [method.momentum_encoder(view) for view in six[:2]]
    terms = [SCEConfig().build()(q, key, queue) for j, key in enumerate(keys) for i, q in enumerate(queries) if i != j]
    assert len(terms) == 10
    torch.testing.assert_close(value, torch.stack(terms).mean())


def test_split_batch_norm_normalizes_each_chunk_separately() -> None:
    norm = nn.BatchNorm2d(3)
    nn.init.normal_(norm.weight)
    split: Any = split_batch_norms(nn.Sequential(nn.BatchNorm2d(3)), 4)
    split.load_state_dict({f"0.{name}": value for name, value in norm.state_dict().items()})
    assert isinstance(split[0], SplitBatchNorm)
    x = torch.randn(8, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(split(x), torch.cat([norm(chunk) for chunk in x.chunk(4)]))
    first = nn.BatchNorm2d(3)
    first(x[:2])
    torch.testing.assert_close(split[0].running_mean, first.running_mean)
    split.eval()
    reference = nn.BatchNorm2d(3).eval()
    reference.load_state_dict(split[0].state_dict())
    torch.testing.assert_close(split(x), reference(x))


def test_splits_reach_every_norm_and_shuffling_keeps_the_order_of_keys() -> None:
    method = build(MomentumContrastConfig(PROJECTOR, queue_size=20, bn_splits=2, shuffle_bn=True), SCEConfig())
    norms = [m for m in method.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(norm, SplitBatchNorm) for norm in norms)
    (view,) = views(32, batch=8)
    torch.manual_seed(3)
    keys = method._keys(view)
    torch.manual_seed(3)
    order = torch.randperm(len(view))
    torch.testing.assert_close(keys[order], method.momentum_encoder(view[order]))
    assert not torch.allclose(
        keys, method.momentum_encoder(view), atol=1e-3
    )  # chunks of other samples have other statistics
    method.eval()  # statistics frozen: any order gives the same keys
    torch.testing.assert_close(method._keys(view), method.momentum_encoder(view))


@pytest.mark.parametrize("name", choices("method"))
def test_a_batch_of_images_is_a_batch_of_clips_of_one_frame(name: str) -> None:
    images = [view[:, :, 0] for view in views(32, 32, 48)]
    outputs = []
    for batch in (images, [view.unsqueeze(2) for view in images]):
        loss = NTXentConfig() if name == "simclr" else SCEConfig()
        outputs.append(build(choices("method")[name](projector=PROJECTOR), loss)(batch))
    assert torch.equal(outputs[0].loss, outputs[1].loss)
    classifier = Classifier(SmallR2Plus1DConfig(width=4, num_blocks=1).build(), num_classes=3)
    assert torch.equal(classifier(images[0]), classifier(images[0].unsqueeze(2)))
