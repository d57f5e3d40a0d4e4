"""Settings of the online evaluation, in a module that does not import Lightning."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from eztorch_sce.data.config import DataConfig
from eztorch_sce.data.sources.labels import check_labels
from eztorch_sce.data.sources.splits import Splits
from eztorch_sce.errors import ConfigError
from eztorch_sce.evaluation.knn import NUM_NEIGHBORS
from eztorch_sce.settings import PathSetting, Settings, setting


@dataclass
class OnlineConfig(Settings):
    """Evaluation of the backbone during pretraining; off by default."""

    every_n_epochs: int | None = setting(
        None, at_least=1, resumable=True, help="Epochs between two evaluations; null turns it off."
    )
    root: PathSetting = setting(
        None,
        is_path=True,
        help="Folder of labeled data, as in data.root; if both root and list are null, the pretraining data.",
    )
    list: PathSetting = setting(None, is_path=True, help="List of labeled data, as in data.list.")
    test_root: PathSetting = setting(None, is_path=True, help="Folder of the test split, as in data.test_root.")
    test_list: PathSetting = setting(None, is_path=True, help="List of the test split, as in data.test_list.")
    layout: str | None = setting(None, help="Layout of the labeled data; null means data.layout.")
    num_clips: int = setting(1, at_least=1, help="Clips per video; features are averaged over clips and crops.")
    num_crops: int = setting(1, at_least=1, at_most=3, help="Crops per clip: 1 (center) or 3.")
    k: int = setting(NUM_NEIGHBORS, at_least=1, help="Number of neighbors that vote in kNN.")

    def conflicts(self, prefix: str) -> Sequence[str]:
        """Return a message if the number of crops is neither 1 nor 3."""
        return [f"{prefix}.num_crops=2 must be 1 (center) or 3"] if self.num_crops == 2 else []

    @property
    def has_own_data(self) -> bool:
        """Whether the labeled data are not those of the pretraining."""
        return any(self._sources().values()) or self.layout is not None

    def _sources(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("root", "list", "test_root", "test_list")}

    def open(self, data: DataConfig, seed: int) -> Splits:
        """Return the labeled train and test splits.

        Args:
            data: Data settings of the pretraining, which apply unless set here.
            seed: Seed of the run, which draws the test split if the data has none.

        Raises:
            ConfigError: If files are missing or the data has no labels.
        """
        if any(self._sources().values()):
            data = replace(data, source=None, **self._sources())
        if self.layout is not None:
            data = replace(data, layout=self.layout)
        splits = data.open_with_test(seed)
        if not splits.train.classes:
            raise ConfigError(
                [
                    f"online.every_n_epochs={self.every_n_epochs}: {splits.train.source} has no labels; set "
                    "online.root or online.list to labeled data, or leave online.every_n_epochs out"
                ]
            )
        check_labels(splits)
        return splits
