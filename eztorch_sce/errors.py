"""The errors a user meets: a setting that cannot be, a file that cannot be read, a training that came to nothing."""

from collections.abc import Sequence


class ConfigError(ValueError):
    """One or more settings that cannot be, all of them in one message.

    Args:
        problems: One sentence each: the setting, its value, what is allowed and what to do.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(f"- {problem}" for problem in self.problems))

    def __reduce__(self) -> tuple[type, tuple[list[str]]]:
        return type(self), (self.problems,)  # survives the way from a worker process


class MediaError(RuntimeError):
    """A video or picture that cannot be read.

    Args:
        path: The file.
        reason: Why, in words, without the path.
    """

    def __init__(self, path: str, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"{path}: {reason}")

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.path, self.reason)


class TrainingError(RuntimeError):
    """A training that cannot go on; says at which step, why, and what to change."""
