"""Stages of a study, each kept when it is finished."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from eztorch_sce.config.fit import SIZES
from eztorch_sce.config.parts import EvaluationViewsConfig
from eztorch_sce.config.schema import PretrainConfig, StudyConfig
from eztorch_sce.data.dataset import EvaluationSampling
from eztorch_sce.data.loading import input_spec
from eztorch_sce.data.survey import Survey, survey
from eztorch_sce.errors import ConfigError, TrainingError
from eztorch_sce.evaluation.health import verdict
from eztorch_sce.opening import summarize
from eztorch_sce.progress import in_words, print_above
from eztorch_sce.studies import conclusion, networks
from eztorch_sce.studies.conclusion import COMPARED, Conclusion, Evidence
from eztorch_sce.studies.paired import compare
from eztorch_sce.studies.plan import MIN_STEPS, Costs, fit_plan
from eztorch_sce.studies.records import StudyRecords, divide, read_records
from eztorch_sce.studies.state import State
from eztorch_sce.studies.tables import print_plan
from eztorch_sce.studies.view_sets import Basis, ViewSet
from eztorch_sce.training.config import TrainerConfig
from eztorch_sce.types import InputSpec

_GUESSING = "guessing"
_READING = 0.1  # fraction of the time for reading every record once
_MEASURING = 0.2  # fraction after which the steps of further sets are not measured
_TRAINING = 0.7  # fraction of the time that is left after the first measurement
_EVALUATING = 0.03  # most of the time for the evaluation of one network with several crops
_ENOUGH_STEPS = 200
_MOST_CLIPS = 4
_FORWARD_OF_STEP = 1 / 8  # of a step on two views: two forward and backward passes, and two of the momentum encoder
_FINETUNE_OF_STEP = 3 / 8  # of a step on two views, for a forward and a backward pass of one
_FINETUNE_EPOCHS = (10, 50)
_EVALUATIONS_S = 4.0  # kNN, linear probe and retrieval of small data


class Study:
    """A study in progress.

    Args:
        config: The validated settings.
        directory: Directory of the study.
        state: Its state on disk.
    """

    def __init__(self, config: StudyConfig, directory: Path, state: State) -> None:
        self.config, self.directory, self.state = config, directory, state
        self.content = state.content

    def look_at_data(self) -> None:
        """Divide the records, read each once, and write their lists."""
        if "records" in self.content:
            return
        with self._stage("look at the data"):
            splits = divide(self.config.data, self.config.seed)
            summarize(splits)
            found = survey(splits.train, self.config.data.build_decoder())
            basis = Basis.of(self._settings(self.config.data), found)
            spec = input_spec(basis.config.data, splits.train, InputSpec(size=basis.size))
            clips = 1
            if found.is_video and spec.num_frames > 1:
                clips = max(1, min(_MOST_CLIPS, math.ceil(found.duration_s / spec.clip_s - 0.25)))
            views = {"num_clips": clips, "num_crops": 3 if found.is_video else 1}
            sampling = EvaluationSampling(clips, views["num_crops"], spec.test_short_side)
            seconds = _READING * 60 * self.config.minutes
            records = read_records(splits, self.config.data, spec, sampling, seconds, self.directory)
            survey_of_train = found._replace(num_records=records.train)
            self.content |= {"records": records.as_dict(), "survey": survey_of_train._asdict(), "views": views}
        for note in records.notes:
            if note not in (*splits.notes, *splits.train.notes):  # which were printed with the summary
                print_above(f"note: {note}")

    def measure(self) -> None:
        """Time a few steps of each pretraining."""
        measured: dict[str, Any] = self.content.setdefault("measured", {})
        for name in [views.name for views in self.basis.sets]:
            if name in measured:
                continue
            if measured and self.state.spent_s > _MEASURING * 60 * self.config.minutes:
                measured[name] = dict(list(measured.values())[-1])  # the networks are of one size
                continue
            with self._stage(f"measure {name}"):
                measured[name] = self._measure(name)
                if len(measured) == 1 and (size := self._faster_size(measured[name]["step_s"])):
                    print_above(f"crops of {size} px instead of {self.basis.size}: larger ones would take too long")
                    self.content["size"] = size
                    del self.basis
                    measured[name] = self._measure(name)
                if self._evaluate_s(name) > _EVALUATING * 60 * self.config.minutes:
                    self.content["views"]["num_crops"] = 1

    def _measure(self, name: str) -> dict[str, float]:
        started = time.monotonic()
        epochs = math.ceil(networks.MEASURED_STEPS / self.basis.steps_per_epoch())
        config = self.basis.pretraining(self._set(name), epochs)
        result = networks.measure(config, self.directory / "measure" / name)
        rest_s = time.monotonic() - started - result.num_steps * result.step_s
        return {"step_s": result.step_s, "start_s": max(0.5, rest_s)}

    def _faster_size(self, step_s: float) -> int | None:
        """Return a smaller side of the crops if too few steps fit with this one; None to keep it."""
        available_s = _TRAINING * self.left_s() / 2  # of two sets of views
        smaller = [size for size in SIZES if size < self.basis.size]
        if available_s / step_s >= _ENOUGH_STEPS or not smaller:
            return None
        fast = [size for size in smaller if available_s / (step_s * (size / self.basis.size) ** 2) >= _ENOUGH_STEPS]
        return max(fast, default=smaller[0])

    def make_plan(self) -> None:
        """Fit the pretrainings into the time that is left, and print the plan."""
        if "plan" in self.content:
            return
        names, left = [views.name for views in self.basis.sets], self.left_s()
        untrained = self.untrained() if self.records.test else {}
        fixed_s = sum(self._evaluate_s(names[0]) for _ in set(untrained.values()))
        plan = fit_plan(names, self._costs(), left, fixed_s)
        rows: list[dict[str, Any]] = [
            {"stage": "look at the data, measure", "seconds": self.state.spent_s, "note": "done"}
        ]
        for network in dict.fromkeys(untrained[name] for name in plan.epochs if name in untrained):
            rows.append({"stage": f"evaluate {network}", "seconds": self._evaluate_s(names[0]), "note": ""})
        for name, epochs in plan.epochs.items():
            seconds = self._costs().start_s + epochs * self._costs().epoch_s(name)
            steps = epochs * self.basis.steps_per_epoch()
            rows.append({"stage": f"pretrain {name}", "seconds": seconds, "note": f"{epochs} epochs, {steps} steps"})
            rows.append({"stage": f"evaluate {name}", "seconds": self._evaluate_s(name), "note": ""})
        rows += [{"stage": f"pretrain {name}", "seconds": 0.0, "note": "left out: no time"} for name in plan.left_out]
        if self._finetune_epochs(plan.spare_s, names[0]):
            rows.append({"stage": "fine-tune", "seconds": plan.spare_s, "note": "in the time that is left"})
        self.content["plan"] = {"rows": rows, "epochs": dict(plan.epochs), "left_out": list(plan.left_out)}
        self.state.save()
        print_plan(self.content["plan"], self.config.minutes)
        if (needed := sum(row["seconds"] for row in rows)) > 60 * self.config.minutes:
            print_above(f"note: even the least takes about {in_words(needed)} here, longer than the time given")
        if min(plan.epochs.values()) * self.basis.steps_per_epoch() < MIN_STEPS:
            print_above("note: so few steps teach a network little; more minutes would help")

    def planned_sets(self) -> list[str]:
        """Return the sets of views that are pretrained with, in order."""
        return list(self.content["plan"]["epochs"])

    def evaluate_untrained(self) -> None:
        """Evaluate the untrained networks of the planned sets."""
        if not self.records.test:
            return  # there is nothing to compare without labels
        of_set = self.untrained()
        for network in dict.fromkeys(of_set[name] for name in self.planned_sets()):
            name = next(name for name, each in of_set.items() if each == network)
            self._evaluate(network, self.directory / "measure" / name, untrained=True, like=name)

    def pretrain(self, name: str) -> bool:
        """Pretrain with a set of views for as many epochs as planned, or as still fit; return whether it succeeded."""
        stages = self.content["stages"]
        stage = f"pretrain {name}"
        if stages.get(stage, {}).get("done"):
            return "failed" not in stages[stage]
        epochs = stages.get(stage, {}).get("epochs") or self._epochs_that_fit(name)
        if not epochs:
            stages[stage] = {"done": True, "failed": "left out: the time was used up by the stages before"}
            print_above(f"{stage}: {stages[stage]['failed']}")
            self.state.save()
            return False
        config = self.basis.pretraining(self._set(name), epochs)
        title = f"{epochs} epochs, about {in_words(epochs * self._costs().epoch_s(name))}"
        with self._stage(stage, title, epochs=epochs) as facts, _noting_failure(stage, facts):
            folder = self.directory / stage_folder(stage)
            limit = networks.pretrain(config, folder, self._limit_s(name), self.state.beat)
            facts |= {"trained": limit.epochs or epochs, "stopped": limit.was_stopped}
            facts["steps"] = limit.total_steps or epochs * self.basis.steps_per_epoch()
            if limit.was_stopped:
                print_above(f"{stage}: stopped in epoch {limit.epochs} of {epochs}, since the time is up")
            elif limit.num_steps:
                self.content["measured"][name]["step_s"] = limit.step_s()
        return "failed" not in stages[stage]

    def evaluate(self, name: str) -> None:
        """Evaluate a pretrained network."""
        self._evaluate(name, self.directory / stage_folder(f"pretrain {name}"), untrained=False, like=name)

    def finetune(self) -> None:
        """Fine-tune the best network and its untrained one, if there is time for both."""
        trained = [name for name in self._trained() if "metrics" in self.content["networks"].get(name, {})]
        if not self.records.test or not trained:
            return
        best = max(trained, key=lambda name: sum(self.content["networks"][name]["metrics"][m] for m in COMPARED))
        epochs = self.content.get("finetune_epochs") or self._finetune_epochs(self.left_s(), best)
        if not epochs:
            return
        self.content["finetune_epochs"] = epochs
        for number, network in enumerate((best, self.untrained()[best])):
            stage = f"fine-tune {network}"
            if self.content["stages"].get(stage, {}).get("done"):
                continue
            with self._stage(stage, f"{epochs} epochs", epochs=epochs) as facts, _noting_failure(stage, facts):
                weights = self.directory / stage_folder(f"pretrain {best}")
                evaluation, limit = networks.finetune(
                    weights, self.directory / stage_folder(network) / "finetune", self._data(), self._views(), epochs,
                    self.config.seed, number == 1, self.left_s() / (2 - number), self.state.beat,
                )  # fmt: skip
                facts["stopped"] = limit.was_stopped
                for key, values in asdict(evaluation).items():
                    self.content["networks"][network][key] |= values

    def conclude(self) -> None:
        """Compare the networks, and write what can be concluded."""
        names = self._trained()
        if not names:
            reasons = [stage["failed"] for stage in self.content["stages"].values() if "failed" in stage]
            raise ConfigError([f"no pretraining came to an end: {'; '.join(reasons)}; give the study more minutes"])
        if self.records.test:
            evidence = self._evidence(names)
            found = conclusion.conclude(evidence)
            self.content["comparisons"] = [asdict(each) | {"verdict": each.verdict} for each in evidence.comparisons]
        else:
            found = self._without_labels(names)
        self.content["conclusion"] = asdict(found) | self._recommendation(found)
        self.state.save()

    def left_s(self) -> float:
        """Return the seconds that are left of the study."""
        return 60 * self.config.minutes - self.state.spent_s

    def untrained(self) -> dict[str, str]:
        """Return the name of the untrained network of each set; sets with the same input share it."""
        inputs = {views.name: views.input for views in self.basis.sets}
        first = {kind: next(name for name, each in inputs.items() if each == kind) for kind in inputs.values()}
        if len(first) == 1:
            return dict.fromkeys(inputs, "untrained")
        return {name: f"untrained {first[kind]}" for name, kind in inputs.items()}

    @cached_property
    def records(self) -> StudyRecords:
        """What is known of the records."""
        return StudyRecords(**self.content["records"])

    @cached_property
    def basis(self) -> Basis:
        """What all pretrainings have in common."""
        found = Survey(**self.content["survey"])
        return Basis.of(self._settings(self._data()), found, self.content.get("size"))

    def _data(self) -> Any:
        return self.records.data(self.directory.resolve(), self.config.data)

    def _settings(self, data: Any) -> PretrainConfig:
        """Return the settings of a pretraining that the study has: data and hardware."""
        trainer = TrainerConfig(accelerator=self.config.accelerator, precision=self.config.precision, devices=1)
        return PretrainConfig(data=data, seed=self.config.seed, trainer=trainer, plugins=self.config.plugins)

    def _views(self) -> EvaluationViewsConfig:
        return EvaluationViewsConfig(**self.content["views"])

    def _set(self, name: str) -> ViewSet:
        return next(views for views in self.basis.sets if views.name == name)

    def _trained(self) -> list[str]:
        stages = self.content["stages"]
        done = {name: stages.get(f"pretrain {name}", {}) for name in self.planned_sets()}
        return [name for name, stage in done.items() if stage.get("done") and "failed" not in stage]

    def _costs(self) -> Costs:
        measured = self.content["measured"]
        return Costs(
            {name: each["step_s"] for name, each in measured.items()},
            self.basis.steps_per_epoch(),
            max(each["start_s"] for each in measured.values()),
            {name: self._evaluate_s(name) for name in measured},
        )

    def _evaluate_s(self, name: str) -> float:
        """Return the seconds of an evaluation: as measured for another network, or predicted from a training step."""
        took = [stage["took_s"] for title, stage in self.content["stages"].items()
                if title.startswith("evaluate") and stage.get("done")]  # fmt: skip
        if took:
            return float(max(took))
        records, views = self.records, self.content["views"]
        step_s = self.content["measured"][name]["step_s"]
        sample_s: float = step_s / self.basis.pretraining(self._set(name), 1).data.samples_per_step
        forward_s = sample_s * _FORWARD_OF_STEP * views["num_clips"] * views["num_crops"]
        return float((records.train + records.test) * (records.read_s + forward_s) + _EVALUATIONS_S)

    def _remaining_sets(self, name: str) -> list[str]:
        planned = self.planned_sets()
        return planned[planned.index(name) :]

    def _epochs_that_fit(self, name: str) -> int:
        """Return the planned epochs, or fewer if earlier stages took longer than planned; 0 if none fits."""
        rest = self._remaining_sets(name)
        costs, left = self._costs(), self.left_s()
        if self._trained() and left < costs.start_s + costs.evaluate_s[name] + 2 * costs.epoch_s(name):
            return 0
        fitting = fit_plan(rest, costs, left).epochs.get(name, 1)
        return int(min(self.content["plan"]["epochs"][name], fitting))

    def _limit_s(self, name: str) -> float:
        """Return the seconds that a pretraining may take; half of what the later ones need is kept for them."""
        rest, costs, epochs = self._remaining_sets(name), self._costs(), self.content["plan"]["epochs"]
        kept: float = sum(costs.evaluate_s[other] for other in rest)
        kept += sum(epochs[other] * costs.epoch_s(other) for other in rest[1:]) / 2
        return max(1.0, self.left_s() - kept)

    def _finetune_epochs(self, seconds: float, name: str) -> int:
        """Return the epochs of two fine-tunings that fit, or 0."""
        if not self.records.test:
            return 0
        batch_size = self.basis.pretraining(self._set(name), 1).data.samples_per_step
        sample_s = self.content["measured"][name]["step_s"] / batch_size
        epoch_s = self.records.train * (sample_s * _FINETUNE_OF_STEP + self.records.read_s)
        each_s = 0.85 * seconds / 2 - self._costs().start_s - 2 * self._evaluate_s(name)
        fewest, most = _FINETUNE_EPOCHS
        epochs = int(each_s // epoch_s)
        return min(most, epochs) if epochs >= fewest else 0

    def _evaluate(self, network: str, weights: Path, untrained: bool, like: str) -> None:
        stage = f"evaluate {network}"
        if self.content["stages"].get(stage, {}).get("done"):
            return
        with self._stage(stage, f"about {in_words(self._evaluate_s(like))}"):
            folder = self.directory / stage_folder(network)
            found = networks.evaluate(weights, folder, self._data(), self._views(), self.config.seed, untrained)
            self.content.setdefault("networks", {})[network] = asdict(found)

    def _evidence(self, names: list[str]) -> Evidence:
        """Compare every set with its untrained network and the others, and the sets with each other."""
        of_set, content = self.untrained(), self.content
        untrained = list(dict.fromkeys(of_set[name] for name in names))
        pairs = [(name, network) for name in names for network in untrained]
        pairs += [(first, second) for number, first in enumerate(names) for second in names[number + 1 :]]
        folders = {name: self.directory / stage_folder(name) for name in (*names, *untrained)}
        outcomes = {name: networks.outcomes(folder) for name, folder in folders.items()}
        compared = {
            name: {metric: values for metric, values in each.items() if metric in (*COMPARED, "test_top1")}
            for name, each in outcomes.items()
        }
        groups = networks.test_groups(folders[names[0]])
        num_test = len(next(iter(compared[names[0]].values())))
        levels = {metric: level for name in folders for metric, level in content["networks"][name]["chance"].items()}
        compared_with_chance = {**compared, _GUESSING: {name: np.full(num_test, levels[name]) for name in COMPARED}}
        return Evidence(
            self.records.kind,
            names,
            {name: of_set[name] for name in names},
            compare(compared, pairs, groups),
            compare(compared_with_chance, [(name, _GUESSING) for name in folders], groups),
            num_test,
            num_test if groups is None else len(set(groups.tolist())),
            {name: content["stages"][f"pretrain {name}"]["trained"] for name in names},
            {name: content["stages"][f"pretrain {name}"]["steps"] for name in names},
            {name: content["measured"][name]["step_s"] for name in names},
        )

    def _without_labels(self, names: list[str]) -> Conclusion:
        problems = {}
        for name in names:
            steps = self.content["stages"][f"pretrain {name}"]["steps"]
            problems[name] = verdict(networks.diagnostics(self.directory / stage_folder(f"pretrain {name}")))
            if problems[name] is None and steps < MIN_STEPS:
                problems[name] = f"{steps} steps are too few to see whether the embeddings collapse"
        step_s = {name: self.content["measured"][name]["step_s"] for name in names}
        healthy = [name for name in names if problems[name] is None] or names
        return conclusion.without_labels(self.records.kind, problems, min(healthy, key=step_s.__getitem__))

    def _recommendation(self, found: Conclusion) -> dict[str, str | None]:
        """Return the command of a longer training, and how long it takes."""
        name = found.recommended
        if name is None:
            return {"command": None, "time": None}
        run_dir = self.directory / stage_folder(f"pretrain {name}")
        train_list = self.directory / "train_all.csv" if self.records.is_subset else None
        epochs = max(
            conclusion.LONGER * self.content["stages"][f"pretrain {name}"]["trained"], self.basis.default_epochs()
        )
        steps = self.basis.steps_per_epoch() * self.records.all_train / self.records.train
        command = conclusion.longer_command(run_dir, train_list, epochs, f"{self.directory.name}-{name}-longer")
        return {"command": command, "time": in_words(epochs * steps * self.content["measured"][name]["step_s"])}

    @contextmanager
    def _stage(self, name: str, title: str = "", **facts: Any) -> Iterator[dict[str, Any]]:
        """Announce a stage, note how long it takes, and keep its facts once it is finished."""
        stage: dict[str, Any] = self.content["stages"].setdefault(name, {"began_s": self.state.spent_s, **facts})
        left = f"{in_words(self.left_s())} of {self.config.minutes:g} min left"
        left = left if self.left_s() > 0 else f"the {self.config.minutes:g} min are over"
        print_above(f"{name}{f': {title}' if title else ''} ({left})")
        self.state.save()
        yield stage
        stage |= {"done": True, "took_s": self.state.spent_s - stage["began_s"]}
        self.state.save()


@contextmanager
def _noting_failure(name: str, facts: dict[str, Any]) -> Iterator[None]:
    """Note and print why the training of a stage failed; the study goes on without it."""
    try:
        yield
    except (TrainingError, ConfigError) as error:
        facts["failed"] = str(error)
        print_above(f"{name} failed: {error}")


def stage_folder(name: str) -> str:
    """Return the folder of a stage or a network.

    >>> stage_folder("pretrain motion")
    'pretrain-motion'
    """
    return name.replace(" ", "-")
