"""Tests of the plan: it fits, it is fair, and it leaves out sets of views before it starves them."""

import pytest

from eztorch_sce.studies.plan import MIN_STEPS, Costs, fit_plan

NAMES = ["motion", "color", "both"]


def costs(step_s: float, steps_per_epoch: int = 8) -> Costs:
    return Costs(dict.fromkeys(NAMES, step_s), steps_per_epoch, 5.0, dict.fromkeys(NAMES, 20.0))


@pytest.mark.parametrize("seconds", [120, 300, 1200, 3600])
@pytest.mark.parametrize("step_s", [0.05, 0.3, 1.0])
def test_a_plan_fits_and_treats_all_sets_alike(seconds: float, step_s: float) -> None:
    plan = fit_plan(NAMES, costs(step_s), seconds, fixed_s=30)
    if plan.epochs != {"motion": 1}:  # the least that can be done
        assert plan.seconds <= seconds
    assert len(set(plan.epochs.values())) == 1
    assert [*plan.epochs, *plan.left_out] == NAMES


def test_too_little_time_leaves_out_the_last_sets_and_not_the_steps() -> None:
    plan = fit_plan(NAMES, costs(step_s=1.0), seconds=200)
    assert plan.left_out == ("both",)
    assert all(8 * epochs >= MIN_STEPS for epochs in plan.epochs.values())


def test_a_slower_machine_gets_fewer_epochs() -> None:
    fast, slow = (fit_plan(NAMES, costs(step_s), seconds=3600).epochs["motion"] for step_s in (0.5, 1.0))
    assert slow < fast < 2.1 * slow


def test_time_beyond_the_longest_training_is_spared_for_fine_tuning() -> None:
    assert fit_plan(NAMES, costs(step_s=0.01), seconds=3600).spare_s > 3000
