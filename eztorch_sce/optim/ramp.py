"""Ramps: settings of the loss or the method that change during training."""

import math
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from eztorch_sce import settings
from eztorch_sce.errors import ConfigError, did_you_mean
from eztorch_sce.objects import PassedObject
from eztorch_sce.settings import Settings


@dataclass
class Ramp(Settings):
    """Change a setting from `start` to its configured value over the first fraction of training."""

    setting: str = settings.setting("", help="Setting to change, such as loss.positive_weight or method.momentum.")
    start: float | None = settings.setting(None, help="Value at the first step, within the bounds of the setting.")
    over: float = settings.setting(1.0, above=0, at_most=1, help="Fraction of training over which the setting changes.")
    shape: str = settings.setting(
        "cosine", choices=("linear", "cosine"), help="Shape of the ramp: a straight line or half a cosine."
    )

    def at(self, progress: float, end: float) -> float:
        """Return the value at `progress` in [0, 1] of training of a setting whose configured value is `end`.

        Examples:
            >>> Ramp("loss.positive_weight", start=1.0, over=0.5, shape="linear").at(progress=0.25, end=0.0)
            0.5
        """
        if self.start is None:
            return end
        fraction = min(1.0, progress / self.over)
        if self.shape == "cosine":
            fraction = (1 - math.cos(math.pi * fraction)) / 2
        return self.start + (end - self.start) * fraction


class MovingSetting:
    """A ramp and the attribute that it changes.

    Args:
        ramp: The ramp.
        modules: Modules by the prefix of their settings ("loss", "method").

    Raises:
        ConfigError: If the module does not have the setting as an attribute, or if it is not a number.
    """

    def __init__(self, ramp: Ramp, modules: Mapping[str, Any]) -> None:
        prefix, self.name = ramp.setting.split(".", 1)
        self.ramp, self.module = ramp, modules[prefix]
        owner, value = type(self.module).__name__, getattr(self.module, self.name, None)
        if not hasattr(self.module, self.name):
            problem = f"{owner} has no attribute {self.name}: keep the setting in one, and read it in every step"
            raise ConfigError([f"ramps: {ramp.setting} cannot be ramped, because {problem}"])
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            problem = f"{owner}.{self.name} is a {type(value).__name__}, not a number"
            raise ConfigError([f"ramps: {ramp.setting} cannot be ramped, because {problem}"])
        self.end = float(value)

    def move(self, progress: float) -> None:
        """Set the attribute to its value at `progress` in [0, 1] of training."""
        setattr(self.module, self.name, self.ramp.at(progress, self.end))


def ramp_conflicts(ramps: Sequence[Ramp], configs: Mapping[str, Any], path: str) -> list[str]:
    """Return one message per ramp whose setting is unknown or ramped twice, or whose start is out of bounds.

    Args:
        ramps: The ramps.
        configs: Configs whose numeric settings may be ramped, by prefix ("loss", "method"); of a passed object, the
            numbers among its attributes. None has no settings.
        path: Path of the ramps, for the messages.
    """
    known = {f"{prefix}.{name}": declared for prefix, config in configs.items() for name, declared in _numbers(config)}
    messages = []
    for number, ramp in enumerate(ramps):
        if ramp.setting not in known:
            hint = did_you_mean(ramp.setting, known)
            messages.append(f"{path}.{number}.setting={ramp.setting} must be one of {', '.join(known)}{hint}")
        elif ramp.start is None:
            messages.append(
                f"{path}.{number}.start=null must be a number: the value of {ramp.setting} at the first step"
            )
        elif message := settings.problem_with(f"{path}.{number}.start", ramp.start, known[ramp.setting], float):
            messages.append(f"{message}, like {ramp.setting}")
        if ramp.setting in [earlier.setting for earlier in ramps[:number]]:
            messages.append(
                f"{path}.{number}.setting={ramp.setting} must not be repeated: an earlier ramp changes the same setting"
            )
    return messages


def _numbers(config: Any) -> list[tuple[str, settings.Setting]]:
    """Return the name and declaration of each setting of a config that is a real number."""
    if config is None:
        return []
    if isinstance(config, PassedObject):
        attributes = vars(config.value).items() if hasattr(config.value, "__dict__") else ()
        names = [name for name, value in attributes if isinstance(value, float) and not name.startswith("_")]
        return [(name, settings.Setting()) for name in names]
    hints = typing.get_type_hints(type(config))
    numbers = [item for item in fields(config) if hints[item.name] in (float, float | None)]
    return [(item.name, settings.declaration(item) or settings.Setting()) for item in numbers]
