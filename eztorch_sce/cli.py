"""`eztorch-sce <command> key=value ...`."""

import os
import sys
from collections.abc import Sequence

from eztorch_sce.errors import ConfigError, MediaError, TrainingError, did_you_mean

USAGE = """\
usage: eztorch-sce <command> [key=value ...]

  demo       make a small data set of moving shapes, learn from it without labels, show what was learned
  pretrain   a backbone from a folder of videos or images, without labels     data.root=FOLDER or data.list=CSV
  plan       what a pretraining would take: FLOPs, memory, time                 recipe=NAME devices=8 device=A100-80G
  knn        how good its features are: vote of the nearest neighbors          weights=RUN data.root=FOLDER
  linear     the same by a linear classifier on frozen features                 weights=RUN data.root=FOLDER
  retrieve   the same by retrieval, R@1 to R@50 and mAP, also by class          weights=RUN data.root=FOLDER
  svm        the same by a linear support vector machine per class              weights=RUN data.root=FOLDER
  few-shot   the same from a few labeled records of a few classes              weights=RUN data.root=FOLDER
  extract    features to files; the five above take features=RUN instead        weights=RUN data.root=FOLDER
  finetune   an action classifier from the backbone                             weights=RUN data.root=FOLDER
  test       a fine-tuned classifier on several clips and crops of each video   weights=RUN data.root=FOLDER
  show-views what a network would see: an image of some records with all views data.root=FOLDER views=POLICY
  data       before a run: `data doctor FOLDER` looks for bad files, `data prepare FOLDER OUT` makes copies that decode
             fast, `data bench FOLDER` finds the fastest decoder, `data check NAME ROOT` counts what a publisher names,
             `data unpack SOURCE OUT` makes image files of CIFAR and STL-10     --help tells more
  compare    runs side by side: their numbers, and where their protocols differ compare RUN RUN ...
  recipes    the published results that can be run by recipe=NAME               or recipes NAME: all of one
  env        versions, what is usable on this machine, what to install for what is not

  eztorch-sce <command> --cfg job    shows every setting; Hydra's -m sweeps over values (-m seed=0,1,2).
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; on a mistake of the user print it in words and exit with 2."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE)
        return
    command, rest = words[0], words[1:]
    try:
        _run(command, rest)
    except (ConfigError, MediaError, TrainingError) as error:
        if "EZTORCH_SCE_TRACE" in os.environ:
            raise
        what = "stopped" if isinstance(error, TrainingError) else "this cannot run as asked"
        print(f"eztorch-sce {command}: {what}\n{error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        cure = "the same command" if command == "data" else "`run.dir=... run.resume=true`"
        print(f"\neztorch-sce {command}: stopped; {cure} goes on", file=sys.stderr)
        sys.exit(130)


def _run(command: str, rest: list[str]) -> None:
    if command == "env":
        from eztorch_sce.report.environment import print_environment

        return print_environment()

    if command == "data":
        return _run_data(rest)

    from eztorch_sce.config import compose

    if command == "recipes":
        from eztorch_sce.report.tables import print_recipes

        if rest:
            return print(compose.recipe_text(rest[0]), end="")
        return print_recipes(compose.recipes())
    if command == "compare":
        from eztorch_sce.report.compare import print_comparison

        return print_comparison(rest)
    if command not in compose.COMMANDS:
        known = [*compose.COMMANDS, "data", "compare", "recipes", "env"]
        raise ConfigError([f"{command} is not a command{did_you_mean(command, known)}; commands: {', '.join(known)}"])
    if any(word.startswith(("-", "hydra")) for word in rest):
        return _run_by_hydra(command, rest)
    _start(command, compose.compose(command, rest))


def _run_data(words: list[str]) -> None:
    """Run a command on the files of a data set; exit with 1 if files are unusable, missing or failed."""
    from eztorch_sce.curation.arguments import parse
    from eztorch_sce.curation.command import DATA_COMMANDS, help_text

    name, rest = (words[0], words[1:]) if words else ("", [])
    if name in ("", "-h", "--help", "help") or "--help" in rest or "-h" in rest:
        return print(help_text(name))
    if name not in DATA_COMMANDS:
        known = ", ".join(DATA_COMMANDS)
        raise ConfigError([f"data {name} is not a command{did_you_mean(name, DATA_COMMANDS)}; commands: {known}"])
    command = DATA_COMMANDS[name]
    line = parse(command, rest)
    if command.run is None:
        return _bench(line.arguments[0], line.overrides)
    sys.exit(0 if command.run(*line.arguments, line.config) else 1)


def _bench(folder: str, overrides: list[str]) -> None:
    from eztorch_sce import api
    from eztorch_sce.config import compose
    from eztorch_sce.curation.command import print_bench

    print_bench(api.bench(compose.compose("pretrain", [f"data.root={folder}", *overrides])))


def _start(command: str, config: object) -> None:
    from eztorch_sce import api, demo
    from eztorch_sce.report.tables import print_plan, print_report

    result = getattr(demo if command == "demo" else api, command.replace("-", "_"))(config)
    print_plan(result) if command == "plan" else print_report(result)


def _run_by_hydra(command: str, rest: list[str]) -> None:
    """Hand over to Hydra for what it does itself: `-m`, `--cfg job`, launchers."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import DictConfig

    from eztorch_sce.config import compose

    flags = [word for word in rest if word.startswith("-") or "=" not in word]  # --cfg has a value of its own
    compose.prepare_hydra()
    overrides = compose.expand(command, [word for word in rest if word not in flags])
    run_dir = next((word.split("=", 1)[1] for word in overrides if word.startswith("run.dir=")), None)
    # A run writes its own directory; Hydra adds none, and gives each job of a sweep a numbered one.
    quiet = ["hydra.output_subdir=null", "hydra.run.dir=.", "hydra/job_logging=none"]
    quiet.append(f"hydra.sweep.dir={run_dir or f'runs/{command}-sweep-${{now:%Y%m%d-%H%M%S}}'}")
    sys.argv = [sys.argv[0], *flags, *quiet, *overrides]

    @hydra.main(version_base="1.3", config_path=f"pkg://{compose.CONFIG_MODULE}", config_name=command)
    def job(composed: DictConfig) -> None:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            composed.run.dir = HydraConfig.get().runtime.output_dir
        _start(command, compose.to_config(composed))

    job()
