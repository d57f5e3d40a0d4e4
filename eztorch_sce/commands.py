"""Commands that take files, folders or run directories as positional arguments.

The modules that do the work are imported when a command runs, so that `--help` responds at once.
"""

from collections.abc import Mapping
from typing import Any

from eztorch_sce.checkpoints.command import CHECKPOINT_COMMANDS
from eztorch_sce.curation.command import DATA_COMMANDS
from eztorch_sce.positional import Argument, CommandGroup, PositionalCommand
from eztorch_sce.report.settings import ReplayConfig, ReportConfig, WatchConfig
from eztorch_sce.waiting import announced


def _report(*words: Any) -> bool:
    with announced("loading PyTorch"):
        from eztorch_sce.pages import report_page
    from eztorch_sce.printing import print_line

    *runs, config = words
    print_line(f"written to {report_page(runs, config)}")
    return True


def _report_mistakes(*words: Any) -> list[str]:
    from eztorch_sce.pages import mistakes_in_report

    *runs, config = words
    return mistakes_in_report(runs, config)


def _watch(run: str, config: WatchConfig) -> bool:
    with announced("loading"):
        from eztorch_sce.watch import watch

    watch(run, config)
    return True


def _replay(run: str, config: ReplayConfig) -> bool:
    with announced("loading PyTorch Lightning"):
        from eztorch_sce.replay_words import lines
        from eztorch_sce.replaying import replay
        from eztorch_sce.training import trainer  # noqa: F401  # would be imported later, silently
    from eztorch_sce.printing import print_line

    for line in lines(replay(run, config.step, accelerator=config.accelerator, data_root=config.data.root)):
        print_line(line)
    return True


COMMANDS: Mapping[str, PositionalCommand] = {
    "report": PositionalCommand(
        "report",
        "Write one HTML file that shows the results, curves, embeddings and nearest clips of runs side by side.",
        (
            Argument(
                "RUN",
                "Run directory of any command, of a demo or a study, or the folder of a sweep.",
                is_repeated=True,
            ),
        ),
        ReportConfig,
        (
            "eztorch-sce report runs/mine",
            "eztorch-sce report runs/mine runs/other out=both.html",
            "eztorch-sce report runs/mine data.root=/media/disk/videos",
        ),
        _report,
        mistakes=_report_mistakes,
    ),
    "watch": PositionalCommand(
        "watch",
        "Serve the page of a run while it trains, to browsers of this machine: curves, verdict, views and progress.",
        (Argument("RUN", "Run directory, or a folder of runs such as a demo's; it need not exist yet."),),
        WatchConfig,
        (
            "eztorch-sce watch runs/pretrain-1",
            "eztorch-sce watch runs/pretrain-1 port=8123",
            "eztorch-sce watch runs/demo-1",
        ),
        _watch,
    ),
    "replay": PositionalCommand(
        "replay",
        "Take a step of a training again: its records and views, its loss, and the first layer with a number that is "
        "NaN or infinite.",
        (Argument("RUN", "Run directory of pretrain or finetune.", is_folder=True),),
        ReplayConfig,
        (
            "eztorch-sce replay runs/mine",
            "eztorch-sce replay runs/mine step=1234",
            "eztorch-sce replay runs/mine step=1234 accelerator=cpu data.root=/media/disk/videos",
        ),
        _replay,
        flags=("step",),
    ),
}

GROUPS: Mapping[str, CommandGroup] = {
    group.name: group
    for group in (
        CommandGroup(
            "data",
            "Inspect and prepare the files of a data set before a run.",
            DATA_COMMANDS,
            shared="eztorch_sce.curation.doctor",
        ),
        CommandGroup(
            "checkpoint",
            "Look into checkpoints of any code base, import their weights, and export those of runs.",
            CHECKPOINT_COMMANDS,
            shared="eztorch_sce.models.weights",
        ),
    )
}
