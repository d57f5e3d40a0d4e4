"""Linear probes on features with a known result."""

import pytest
import torch
from torch import Tensor

from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.errors import ConfigError
from eztorch_sce.evaluation.linear import LinearConfig, LinearHeads, Probe, linear_probe, standardization
from eztorch_sce.evaluation.selection import groups_of, validation_rows
from eztorch_sce.report.protocol import training_card
from eztorch_sce.settings import invalid_settings
from eztorch_sce.types import FeatureBank


def feature_bank(features: Tensor, labels: Tensor) -> FeatureBank:
    return FeatureBank(features, labels, [f"{i}.mp4" for i in range(len(labels))], ["a", "b", "c"])


def clusters(count: int, seed: int) -> FeatureBank:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    return feature_bank(torch.eye(3, 8)[labels] + 0.1 * torch.randn(count, 8, generator=generator), labels)


def probed(
    train: FeatureBank, test: FeatureBank, lrs: tuple[float, ...] = (0.3,), select_on: str = "validation"
) -> dict[str, float]:
    return linear_probe(train, test, Probe(list(lrs), max_epochs=20, select_on=select_on)).metrics


def test_separable_classes_are_separated_reproducibly() -> None:
    train, test = clusters(90, 0), clusters(30, 1)
    metrics = probed(train, test)
    assert metrics == {"linear_top1": 1.0, "linear_top5": 1.0, "linear_train_top1": 1.0}
    assert metrics == probed(train, test)


def hard_train_split() -> FeatureBank:
    train = clusters(90, 0)
    train.features += 2 * torch.randn(train.features.shape, generator=torch.Generator().manual_seed(2))
    return train


def test_a_sweep_in_one_pass_equals_one_pass_per_learning_rate() -> None:
    train, test = hard_train_split(), clusters(30, 1)
    lrs = (0.001, 0.3, 3.0)
    sweep = probed(train, test, lrs, select_on="test")
    alone = [probed(train, test, (lr,))["linear_top1"] for lr in lrs]
    assert [sweep[f"linear_top1@{lr:g}"] for lr in lrs] == alone
    assert sweep["linear_top1"] == max(alone)
    assert sweep["linear_lr"] == lrs[alone.index(max(alone))]
    chosen = probed(train, test, (sweep["linear_lr"],))
    assert sweep["linear_train_top1"] == chosen["linear_train_top1"]  # of the same classifier, not the best on train


def test_the_rate_chosen_on_held_out_train_records_gives_the_result_of_that_rate_alone() -> None:
    train, test = hard_train_split(), clusters(30, 1)
    lrs = (1e-9, 0.3, 3.0)
    sweep = probed(train, test, lrs)
    by_lr = {lr: sweep[f"linear_validation_top1@{lr:g}"] for lr in lrs}
    assert sweep["linear_lr"] == max(lrs, key=lambda lr: by_lr[lr]) != 1e-9
    assert sweep["linear_validation_top1"] == max(by_lr.values())
    assert sweep.items() >= probed(train, test, (sweep["linear_lr"],)).items()


def test_the_test_labels_do_not_choose_a_learning_rate() -> None:
    train, test = hard_train_split(), clusters(30, 1)
    shuffled = feature_bank(test.features, test.labels.roll(1))
    lrs = (0.001, 0.3, 3.0)
    first, second = probed(train, test, lrs), probed(train, shuffled, lrs)
    assert first["linear_top1"] != second["linear_top1"]
    names = ["linear_lr", "linear_validation_top1", *(f"linear_validation_top1@{lr:g}" for lr in lrs)]
    assert [first[name] for name in names] == [second[name] for name in names]
    assert not any(name.startswith("linear_top1@") for name in first)


def test_a_train_split_too_small_to_hold_out_a_record_is_explained() -> None:
    train, test = clusters(3, 0), clusters(6, 1)
    with pytest.raises(ConfigError, match=r"no class of the train split has two records.*set select_on=test"):
        probed(train, test, (0.1, 1.0))
    assert probed(train, test, (0.1, 1.0), select_on="test")["linear_top1"] > 0
    assert probed(train, test)["linear_top1"] > 0


def test_copies_of_a_record_choose_a_learning_rate_together() -> None:
    """With copies on both sides, a rate that memorizes noise would look best."""
    train = clusters(12, 0)
    train.features = train.features.repeat_interleave(2, dim=0)
    train.labels, train.paths = train.labels.repeat_interleave(2), [*train.paths] * 2
    held_out = validation_rows(train.labels, train.classes, 0.25, 0, groups_of(train)).view(12, 2)
    assert torch.equal(held_out[:, 0], held_out[:, 1])
    assert held_out[:, 0].sum() == 3
    train.groups = torch.arange(24) // 2 % 3  # one group per class
    with pytest.raises(ConfigError, match="no class of the train split has two records that differ"):
        validation_rows(train.labels, train.classes, 0.25, 0, groups_of(train))


def test_a_probe_of_noise_stays_near_chance() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 3
    train, test = (feature_bank(torch.randn(300, 8, generator=generator), labels) for _ in range(2))
    assert probed(train, test)["linear_top1"] < 0.45


@pytest.mark.parametrize("movement", [1e-4, 1e-2, 1.0, 100.0])
@pytest.mark.parametrize("in_training", ["zero", "0.5", "rounding of 0", "rounding of 0.5"])
def test_a_feature_that_is_constant_in_training_does_not_move_the_result(in_training: str, movement: float) -> None:
    train, test = clusters(90, 0), clusters(60, 1)
    generator = torch.Generator().manual_seed(2)
    value, noise = float(in_training.split()[-1].replace("zero", "0")), 1e-6 * ("rounding" in in_training)
    train.features[:, 5] = value + noise * torch.randn(90, generator=generator)
    test.features[:, 5] = value + movement * torch.randn(60, generator=generator)
    metrics = probed(train, test)
    assert metrics == {"linear_top1": 1.0, "linear_top5": 1.0, "linear_train_top1": 1.0, "constant_features": 1.0}


def test_only_constant_features_are_left_out_of_the_standardization() -> None:
    features = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 6, 6)
    features[:, 2] = 3.0
    mean, deviation = standardization(features)
    varying = [0, 1, 3, 4, 5]
    torch.testing.assert_close(deviation[varying], features[:, varying].std(dim=0))
    torch.testing.assert_close(mean, features.mean(dim=0))
    assert deviation[2] == torch.inf


def test_features_that_are_all_constant_leave_the_bias_alone() -> None:
    train, test = clusters(9, 0), clusters(6, 1)
    train.features[:] = 2.0
    metrics = probed(train, test)
    assert metrics["linear_top1"] == pytest.approx(1 / 3)
    assert metrics["constant_features"] == 8


def test_a_single_train_record_is_enough_to_predict_its_class() -> None:
    train = clusters(1, 0)
    assert probed(train, train)["linear_top1"] == 1


def test_heads_without_standardization_return_the_same_logits() -> None:
    torch.manual_seed(0)
    heads, features = LinearHeads(8, 3, [0.1, 1.0]), 5 + 3 * torch.randn(20, 8)
    mean, deviation = features.mean(dim=0), features.std(dim=0)
    expected = heads((features - mean) / deviation)
    heads.undo_standardization(mean, deviation)
    torch.testing.assert_close(heads(features), expected)


def test_invalid_settings_are_reported_together() -> None:
    config = LinearConfig(features="runs/features", lrs=[0.1, -1.0])
    config.data.batch_size = 0
    assert invalid_settings(config) == [
        "lrs=[0.1,-1] must be numbers greater than 0",
        "data.batch_size=0 must be at least 1",
    ]


def test_the_protocol_card_says_where_the_learning_rate_was_chosen() -> None:
    assert "select_on" not in training_card(LinearConfig())
    chosen = training_card(LinearConfig(lrs=[1.0]))
    assert (chosen["select_on"], chosen["validation_fraction"]) == ("validation", 0.2)
    on_test = training_card(LinearConfig(lrs=[1.0], select_on="test"))
    assert on_test["select_on"] == "test"
    assert "validation_fraction" not in on_test


def test_each_learning_rate_is_tried_once() -> None:
    config = LinearConfig(lrs=[0.3, 1.0, 0.3])
    assert config.probe().lrs == [0.3, 1.0]


def test_a_precision_that_has_no_effect_is_explained() -> None:
    extracted = LinearConfig(features="runs/features", precision="bf16-mixed")
    assert any(
        "precision=bf16-mixed has no effect on features=runs/features" in each for each in invalid_settings(extracted)
    )
    on_views = LinearConfig(weights="runs/pretrain", views=[ViewConfig(size=32)], precision="bf16-mixed")
    cure = "precision=bf16-mixed has no effect on a training on views: use trainer.precision=bf16-mixed"
    assert cure in invalid_settings(on_views)
    on_cpu = LinearConfig(weights="runs/pretrain", precision="16-mixed", accelerator="cpu")
    assert "precision=16-mixed requires a GPU: use precision=32-true" in invalid_settings(on_cpu)


@pytest.mark.parametrize("num_views", [1, 2])
def test_views_exclude_features(num_views: int) -> None:
    messages = invalid_settings(LinearConfig(features="runs/features", views=[ViewConfig(size=32)] * num_views))
    conflict = "features=runs/features were extracted once, but views computes them in every epoch: remove one of them"
    assert conflict in messages
    assert any("the classifiers train on one view" in message for message in messages) == (num_views == 2)
