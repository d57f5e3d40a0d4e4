"""Test of a trained classifier on the clips and crops of each record."""

import torch

from eztorch_sce.evaluation.base import Scores
from eztorch_sce.evaluation.features import RecordViews, mean_over_views
from eztorch_sce.evaluation.metrics import top_accuracies
from eztorch_sce.models.classifier import Classifier


def classifier_accuracy(classifier: Classifier, views: RecordViews, device: torch.device) -> Scores:
    """Return `test_top1` and `test_top5`, with softmax averaged over the clips and crops of each record.

    Raises:
        MediaError: If a file cannot be read.
        ConfigError: If the classifier returns NaN.
    """
    probabilities, records = mean_over_views(classifier, lambda logits: logits.softmax(dim=1), views, device)
    views.check_finite(probabilities, records)
    return Scores(top_accuracies(probabilities, views.labels(records), "test"))
