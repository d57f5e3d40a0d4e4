"""Top-1 and top-5 accuracy."""

import pytest
import torch
from torchmetrics.functional.classification import multiclass_accuracy

from eztorch_sce.evaluation.metrics import classification_scores


@pytest.mark.parametrize("num_classes", [2, 5, 12])
def test_accuracies_equal_those_of_torchmetrics_bit_for_bit(num_classes: int) -> None:
    generator = torch.Generator().manual_seed(num_classes)
    scores = torch.randn(331, num_classes, generator=generator)
    scores[::7] = scores[::7].round()  # some ties
    labels = torch.randint(num_classes, (331,), generator=generator)
    top5 = min(5, num_classes)
    assert classification_scores(scores, labels, "x").metrics == {
        "x_top1": float(multiclass_accuracy(scores, labels, num_classes, average="micro")),
        "x_top5": float(multiclass_accuracy(scores, labels, num_classes, average="micro", top_k=top5)),
    }


def test_top5_of_fewer_than_five_classes_is_one() -> None:
    scores = torch.tensor([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]])
    assert classification_scores(scores, torch.tensor([2, 1]), "x").metrics == {"x_top1": 0.5, "x_top5": 1.0}
