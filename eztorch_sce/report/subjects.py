"""Subjects of a page: the weights that the evaluations of some runs are about, each a column of its tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eztorch_sce.report.run_files import RunFiles, all_runs

WITHOUT_NUMBERS = ("extract", "show-views")
"""Commands that say nothing about how good features are."""


@dataclass
class Subject:
    """Weights, the run that made them, and the runs that evaluated them.

    Attributes:
        name: What the page calls them.
        run: The training, or None if it is not among the runs.
        evaluations: Runs that used the weights: evaluations, fine-tunings, tests of fine-tuned classifiers.
        untrained: Runs of the same network with random weights, as a baseline.
    """

    name: str
    run: RunFiles | None = None
    evaluations: list[RunFiles] = field(default_factory=list)
    untrained: list[RunFiles] = field(default_factory=list)

    def runs(self) -> list[RunFiles]:
        """Return the finished runs that have numbers about the weights, the training first."""
        made = [] if self.run is None else [self.run]
        return [run for run in [*made, *self.evaluations] if run.is_finished]


def subjects_of(runs: Sequence[RunFiles]) -> list[Subject]:
    """Return the subjects of runs and of the runs that belong to them, in their order.

    A pretraining is a subject, with the runs that used its weights, and in a study the untrained network with the same
    input as its baseline. So is a training from scratch. Evaluations whose
    training is not among the runs are one subject if they used the same weights and are of different commands; runs of
    one command are compared, and so each is a subject.
    """
    pool = [run for run in all_runs(runs) if run.command not in ("", "demo", "study")]
    adopted = _adopted(pool)
    makers = [run for run in pool if _is_maker(run, pool) and run.directory not in adopted]
    subjects = {run.directory.resolve(): Subject(run.name, run) for run in makers}
    loose: dict[str, list[RunFiles]] = {}
    for run in pool:
        if run in makers:
            continue
        maker = _first_maker(run, pool)
        if parents := adopted.get(run.directory if maker is None else maker.directory):
            for parent in parents:
                subjects[parent.directory.resolve()].untrained.append(run)
        elif maker is not None and maker.directory.resolve() in subjects:
            subject = subjects[maker.directory.resolve()]
            (subject.untrained if _is_untrained(run) else subject.evaluations).append(run)
        elif run.command not in WITHOUT_NUMBERS:
            loose.setdefault(_identity(run), []).append(run)
    return [*subjects.values(), *(subject for group in loose.values() for subject in _loose_subjects(group))]


def _adopted(pool: Sequence[RunFiles]) -> dict[Path, list[RunFiles]]:
    """Return the pretrainings of which a run of an untrained network is the baseline, by its directory.

    A study evaluates one untrained network for all its pretrainings with the same input.
    """
    pretrained = [run for run in pool if run.command == "pretrain"]
    adopted: dict[Path, list[RunFiles]] = {}
    for run in pool:
        study = _study_of(run)
        if study is None or not _is_untrained(run) or _maker(run, pool) is not None:
            continue
        alike = [each for each in pretrained if _study_of(each) == study and _input(each) == _input(run)]
        if alike:
            adopted[run.directory] = alike
    return adopted


def _study_of(run: RunFiles) -> Path | None:
    """Return the folder of the study that a run is part of, or None."""
    place = run.directory.resolve()
    return next((parent for parent in place.parents[:2] if (parent / "study.json").is_file()), None)


def _input(run: RunFiles) -> Any:
    return run.report.get("protocol", {}).get("input")


def _loose_subjects(runs: Sequence[RunFiles]) -> list[Subject]:
    """Return the subjects of evaluations of the same weights."""
    trained = [run for run in runs if not _is_untrained(run)]
    untrained = [run for run in runs if _is_untrained(run)]
    commands = [run.command for run in trained]
    if not trained:
        return [Subject(run.name, None, [run]) for run in untrained]
    if len(set(commands)) < len(commands):
        return [Subject(run.name, None, [run], untrained) for run in trained]
    name = trained[0].name if len(trained) == 1 else str(_card(trained[0]).get("file") or trained[0].name)
    return [Subject(name, None, trained, untrained)]


def _is_maker(run: RunFiles, pool: Sequence[RunFiles]) -> bool:
    """Return whether a run made the weights it reports on, and not from those of another run of the pool."""
    if run.command == "pretrain":
        return True
    return run.command == "finetune" and _maker(run, pool) is None


def _first_maker(run: RunFiles, pool: Sequence[RunFiles]) -> RunFiles | None:
    """Return the training that the weights of a run come from at first: of a test, the pretraining before."""
    maker, passed = _maker(run, pool), [run]
    while maker is not None and maker not in passed and (earlier := _maker(maker, pool)) is not None:
        passed.append(maker)
        maker = earlier
    return maker


def _maker(run: RunFiles, pool: Sequence[RunFiles]) -> RunFiles | None:
    """Return the run of the pool whose weights a run used, or None.

    Paths may be relative to a folder that is not known any more, or of another machine: a run whose directory has the
    same name counts too, if there is only one.
    """
    file = _card(run).get("file") or run.config.get("weights") or _features_source(run, pool)
    if not file or run.command == "pretrain":
        return None
    trained = [each for each in pool if each.command in ("pretrain", "finetune") and each is not run]
    place = Path(str(run.report.get("folder", ""))).joinpath(str(file)).resolve()
    places = (place, place.parent)
    for each in trained:
        if each.directory.resolve() in places:
            return each
    linked = [each for each in trained if run in each.evaluations and run not in _below(each, trained)]
    if linked:
        return linked[0]
    names = (Path(str(file)).name, Path(str(file)).parent.name)
    named = [each for each in trained if each.directory.resolve().name in names]
    return named[0] if len(named) == 1 else None


def _below(run: RunFiles, trained: Sequence[RunFiles]) -> list[RunFiles]:
    """Return the evaluations that belong to later trainings that started from the weights of a run."""
    return [each for other in trained if other in run.evaluations for each in other.evaluations]


def _features_source(run: RunFiles, pool: Sequence[RunFiles]) -> Any:
    """Return the weights of the features that an unfinished evaluation reads."""
    features = run.config.get("features")
    if not features:
        return None
    place = Path(str(features))
    source = next((each for each in pool if each.directory.resolve() == place.resolve()), None)
    return None if source is None else source.config.get("weights")


def _is_untrained(run: RunFiles) -> bool:
    return bool(_card(run).get("untrained") or run.config.get("untrained"))


def _identity(run: RunFiles) -> str:
    """Return a text that is the same for evaluations of the same weights."""
    card = _card(run)
    return str(card.get("sha256") or card.get("file") or run.directory.resolve())


def _card(run: RunFiles) -> Mapping[str, Any]:
    card = run.report.get("protocol", {}).get("weights")
    return card if isinstance(card, Mapping) else {}
