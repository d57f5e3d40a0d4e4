"""Commands that Hydra starts: sweeps, launchers and `--cfg job`."""

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from eztorch_sce.config import compose
from eztorch_sce.config.command_words import refuse_mistyped
from eztorch_sce.config.explain import explain_each
from eztorch_sce.config.mistyped import set_twice
from eztorch_sce.config.overrides import is_in_quotes, quoted, take_literally
from eztorch_sce.config.starting import StartError
from eztorch_sce.errors import ConfigError
from eztorch_sce.launch import is_first_process

_PRINTED = ("job", "hydra", "all")  # values of --cfg
_ONE_OF = ("-m", "--multirun", "-r", "--run", "--cfg", "-c", "--info", "-i")
_FROM_LIGHTNING = ("hydra.run.dir=", "hydra.job.name=", "hydra.output_subdir=")  # added for its child processes


def run_by_hydra(command: str, rest: Sequence[str], start: Callable[[str, Any], None]) -> None:
    """Run a command through Hydra, for `-m`, `--cfg job` and launchers.

    Args:
        command: The command.
        rest: The words after it.
        start: Function that runs the command with a validated config; called once per job of a sweep.

    Raises:
        ConfigError: With one message per mistake.
    """
    refuse_mistyped(command, rest)
    if any(word.startswith("hydra/launcher=submitit") for word in rest) and find_spec("submitit") is None:
        raise ConfigError(
            ["hydra/launcher=submitit_... needs hydra-submitit-launcher: pip install 'eztorch-sce[slurm]'"]
        )
    rest = [word for word in rest if not word.startswith(_FROM_LIGHTNING)]
    flags = [word for word in rest if word.startswith("-") or "=" not in word]  # the value of --cfg has no "="
    _refuse_combinations(flags)
    is_sweep = any(flag in ("-m", "--multirun") for flag in flags)
    texts = take_literally(compose.commands()[command], [word for word in rest if word not in flags], is_sweep)
    try:
        prepared = compose.prepare(command, texts)
    except (StartError, *compose.INVALID) as error:
        raise ConfigError(explain_each(command, texts, error)) from None
    run_dir = next((word.split("=", 1)[1] for word in rest if word.startswith("run.dir=")), None)
    if run_dir is not None and not is_in_quotes(run_dir):
        run_dir = quoted(os.path.expanduser(run_dir))
    # A run writes its own directory: Hydra adds none, except a numbered one for each job of a sweep.
    hydra_settings = ["hydra.output_subdir=null", "hydra.run.dir=.", "hydra/job_logging=none"]
    hydra_settings.append(f"hydra.sweep.dir={run_dir or f'runs/{command}-sweep-${{now:%Y%m%d-%H%M%S}}'}")
    if not is_first_process():  # runs in the directories of the first process, and may only write where nobody looks
        hydra_settings[-1:] = [f"hydra.sweep.dir={quoted(tempfile.mkdtemp())}", "hydra/hydra_logging=disabled"]
    command_line, sys.argv = sys.argv, [sys.argv[0], *hydra_settings, *prepared.words, *flags]

    @hydra.main(version_base="1.3", config_path=None, config_name=command)
    def job(composed: DictConfig) -> None:
        sys.argv = command_line  # which Lightning repeats to start further processes
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            composed.run.dir = HydraConfig.get().runtime.output_dir
        start(command, compose.to_config(composed, prepared))

    compose.say([*set_twice(rest), *prepared.remarks])
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors reach `main`, which prints them without a traceback
    try:
        job()
    except compose.INVALID as error:
        raise ConfigError(explain_each(command, texts, error)) from None


def _refuse_combinations(flags: Sequence[str]) -> None:
    """Raise ConfigError for flags that Hydra would answer with a traceback or its own usage."""
    messages = []
    if len(given := [flag for flag in flags if flag in _ONE_OF]) > 1:
        cure = "; leave out -m and give each setting one value" if {"-m", "--multirun"} & set(given) else ""
        messages.append(f"{' and '.join(given)} exclude each other{cure}")
    for flag, following in zip(flags, [*flags[1:], ""], strict=True):
        if flag in ("--cfg", "-c") and following not in _PRINTED:
            wrong = f", not {following}" if following else ""
            messages.append(f"{flag} takes one of {', '.join(_PRINTED)}{wrong}, as in {flag} job")
    if messages:
        raise ConfigError(messages)
