"""The end of a command: what an evaluation leaves in its run directory, and the report of a run."""

from dataclasses import replace

from eztorch_sce.chance import Chance, chance_levels, without_certain
from eztorch_sce.config.parts import CommandConfig
from eztorch_sce.evaluation.base import Scores
from eztorch_sce.evaluation.intervals import bootstrap_intervals
from eztorch_sce.launch import is_first_process
from eztorch_sce.opening import Opened
from eztorch_sce.report.links import link_to_sources
from eztorch_sce.report.outcomes import write_by_record, write_predictions
from eztorch_sce.report.protocol import run_card
from eztorch_sce.report.run_directory import write_by_class, write_report
from eztorch_sce.report.sample import write_sample
from eztorch_sce.types import FeatureBank, Report


def write_results(
    report: Report, config: CommandConfig, scores: Scores, train: FeatureBank | None, test: FeatureBank
) -> Report:
    """Write the files of an evaluation and its report, and return the report with confidence intervals.

    Metrics that no evaluation could fail, such as the top-5 accuracy of five classes, are left out. Every process calls
    this, and the first writes.

    Args:
        report: The report so far.
        config: The settings of the command.
        scores: The scores; the metrics of the report may be more.
        train: Features of the train split, or None if they were not computed.
        test: Features of the test split.
    """
    metrics = without_certain(report.metrics, report.chance)
    by_record = {name: values for name, values in scores.by_record.items() if name in metrics}
    intervals = scores.intervals | bootstrap_intervals(by_record, test.groups)
    report = replace(
        report,
        metrics=metrics,
        chance={name: chance for name, chance in report.chance.items() if name in metrics},
        intervals={name: list(interval) for name, interval in intervals.items() if name in metrics},
    )
    if is_first_process():
        if scores.by_class:
            write_by_class(report.run_dir, scores.by_class)
        if by_record:
            write_by_record(report.run_dir, by_record)
        if scores.predictions is not None:
            write_predictions(report.run_dir, scores.predictions, train, test)
        write_sample(report.run_dir, train, test)
    report = finish(report, config)
    link_to_sources(report.run_dir, report.protocol.get("weights"), getattr(config, "features", None))
    return report


def finish(report: Report, config: CommandConfig) -> Report:
    """Write the report of a run, with the recipe and the seed that it started from."""
    return write_report(replace(report, protocol=report.protocol | run_card(config)))


def chance_of(metrics: dict[str, float], opened: Opened) -> dict[str, Chance]:
    """Return the chance levels of the metrics of a classifier that was tested on the test split."""
    train, test = opened.train, opened.labeled_test
    return chance_levels(metrics, train.records.labels, test.records.labels, len(train.classes))
