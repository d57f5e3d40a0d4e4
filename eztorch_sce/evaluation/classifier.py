"""Test of a trained classifier on the clips and crops of each record."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eztorch_sce.evaluation.base import Scores
from eztorch_sce.evaluation.features import RecordViews, bank_of, mean_over_views
from eztorch_sce.evaluation.metrics import classification_scores
from eztorch_sce.models.backbones.base import Backbone
from eztorch_sce.models.classifier import Classifier
from eztorch_sce.types import FeatureBank


def classifier_accuracy(classifier: Classifier, views: RecordViews, device: torch.device) -> tuple[Scores, FeatureBank]:
    """Return `test_top1` and `test_top5`, with softmax averaged over the clips and crops of each record.

    The features of the records are returned beside the scores.

    Raises:
        MediaError: If a file cannot be read.
        ConfigError: If the classifier returns NaN.
    """
    head = nn.Sequential(classifier.dropout, classifier.linear)
    bank, probabilities = features_and_probabilities(classifier.backbone, head, views, device)
    return classification_scores(probabilities, bank.labels, "test"), bank


def features_and_probabilities(
    backbone: Backbone, head: nn.Module, views: RecordViews, device: torch.device
) -> tuple[FeatureBank, Float[Tensor, "N ..."]]:
    """Return the features of each record, and its probabilities, both averaged over its clips and crops.

    Args:
        backbone: Maps clips (B, C, T, S, S) to features (B, F).
        head: Maps features (B, F) to logits (B, ..., classes).
        views: The clips and crops.
        device: The device to compute on.

    Raises:
        MediaError: If a file cannot be read.
        ConfigError: If the probabilities are NaN or infinite.
    """
    network, num_features = _Both(backbone, head), backbone.num_features

    def finish(outputs: Float[Tensor, "B columns"]) -> Float[Tensor, "B columns"]:
        features, logits = outputs[:, :num_features], outputs[:, num_features:].unflatten(1, network.shape)
        return torch.cat([features, logits.softmax(dim=-1).flatten(1)], dim=1)

    outputs, records = mean_over_views(network, finish, views, device)
    order = records.argsort()  # processes interleave
    records, outputs = records[order], outputs[order]
    probabilities = outputs[:, num_features:].unflatten(1, network.shape)
    views.check_finite(probabilities, records)
    return bank_of(outputs[:, :num_features], records, views.manifest, views.protocol), probabilities


class _Both(nn.Module):
    """Features and logits side by side, (B, F + number of logits), and `shape`, that of the logits of one clip."""

    def __init__(self, backbone: Backbone, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.shape: tuple[int, ...] = (-1,)

    def forward(self, clips: Float[Tensor, "B C ..."]) -> Float[Tensor, "B columns"]:
        features = self.backbone(clips)
        logits = self.head(features)
        self.shape = tuple(logits.shape[1:])
        return torch.cat([features, logits.flatten(1)], dim=1)
