"""Tests of runner=ray on a real cluster of two nodes on this machine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from toy_job import CountLetters, records_of, write_files

from eztorch_sce.jobs.driver import run_job
from eztorch_sce.jobs.job import Job
from eztorch_sce.jobs.runners.local import LocalRunner
from eztorch_sce.jobs.runners.ray import RayConfig

pytest.importorskip("ray")
pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.filterwarnings("ignore")]  # those of Ray

SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start a head without CPUs and two nodes of one CPU, as processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(SUPPORT))
        from ray.cluster_utils import Cluster

        settings: dict[str, Any] = {"object_store_memory": 80 << 20, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **settings})
        try:
            nodes = [cluster.add_node(num_cpus=1, **settings) for _ in range(2)]
            yield f"127.0.0.1:{cluster.address.rpartition(':')[2]}", nodes
        finally:
            cluster.shutdown()


def test_ray_gives_the_rows_of_local(cluster: Any, tmp_path: Path) -> None:
    paths = write_files(tmp_path / "files", 60)
    work = CountLetters("a")
    expected = run_job(Job.create(tmp_path / "local", work, records_of(paths), 5), work, LocalRunner(), None)
    job = Job.create(tmp_path / "ray", work, records_of(paths), 5)
    merged = run_job(job, work, RayConfig(address=cluster[0]).build(), None)
    assert merged.table.equals(expected.table)
    assert merged.failures == expected.failures
    assert len({receipt.host for receipt in job.receipts().values()}) == 2
