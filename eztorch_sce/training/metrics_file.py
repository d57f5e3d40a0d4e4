"""CSV logger that appends on resume."""

import csv
from argparse import Namespace
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from eztorch_sce.files import open_text, replacing


class MetricsFile(Logger):
    """Log to `metrics.csv`, one row per logged step. Lightning's CSVLogger deletes earlier rows on resume.

    Args:
        run_dir: Run directory.
    """

    def __init__(self, run_dir: Path) -> None:
        super().__init__()
        self.file = run_dir / "metrics.csv"

    @property
    def name(self) -> str:
        """Return an empty string: there is no folder per name."""
        return ""

    @property
    def version(self) -> str:
        """Return an empty string: there is no folder per version."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing, since config.yaml holds the settings."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a row. A new metric adds a column, which is empty in earlier rows."""
        row: dict[str, float | None] = {"step": step, **metrics}
        header = self._header()
        if new := [name for name in row if name not in header]:
            self._rewrite(header + new)
            header += new
        with open_text(self.file, "a") as stream:
            csv.DictWriter(stream, header).writerow(row)

    def _header(self) -> list[str]:
        if not self.file.exists():
            return []
        with open_text(self.file) as stream:
            return next(csv.reader(stream), [])

    def _rewrite(self, header: list[str]) -> None:
        rows: list[dict[str, str]] = []
        if self.file.exists():
            with open_text(self.file) as stream:
                rows = list(csv.DictReader(stream))
        with replacing(self.file) as partial, open_text(partial, "w") as stream:
            writer = csv.DictWriter(stream, header)
            writer.writeheader()
            writer.writerows(rows)
