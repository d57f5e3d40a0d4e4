"""A Ray cluster: joining or starting it, checking its nodes before work starts, and mapping shards to its actors."""

import importlib.util
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from eztorch_sce.cores import num_usable_cores
from eztorch_sce.errors import ConfigError, counted, first_line, shorten
from eztorch_sce.jobs.job import version
from eztorch_sce.jobs.store import Store
from eztorch_sce.progress import print_above

_REACH_S = 15.0  # for a machine to accept a connection
_JOIN_S = (
    60.0  # for a process to join a cluster, in seconds that include its start; Ray itself would wait for two minutes
)
_ANSWER_S = 60.0  # for a node, which starts a process and imports the package
_MOST_DEATHS = 3  # in a row, of actors that cannot open the job, before the job stops: the cause is not one node
_OBJECT_STORE = 128 << 20  # bytes, of a cluster that is started here: only numbers and reasons are in it
_ENVIRONMENT = {
    "RAY_ENABLE_AUTO_CONNECT": "0",  # threads of Ray Data would join again after this process has left
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to the authors of Ray unless the user asks for it
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # the core of Ray writes to stderr, between our lines
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # and prints the errors of its tasks, which come back as reasons
}
_has_joined = False  # by `connect`: Ray has one connection per process
_JOIN = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)"


class Needs(NamedTuple):
    """What a worker occupies of its node.

    Attributes:
        cpus: Number of CPUs.
        gpus: Number of GPUs; a fraction of one is shared.
        memory_gb: Memory in GB, or None.
    """

    cpus: int
    gpus: float
    memory_gb: float | None

    def count(self, resources: dict[str, float]) -> int:
        """Return how many workers a node of these resources holds.

        >>> Needs(2, 0.5, None).count({"CPU": 16.0, "GPU": 2.0}), Needs(1, 0, 8.0).count({"CPU": 4.0, "memory": 2e10})
        (4, 2)
        """
        each = {"CPU": self.cpus, "GPU": self.gpus, "memory": (self.memory_gb or 0) * 1e9}
        return min(int(resources.get(name, 0) / need) for name, need in each.items() if need)

    def __str__(self) -> str:
        parts = [f"cpus_per_worker={self.cpus}"]
        parts += [f"gpus_per_worker={self.gpus:g}"] if self.gpus else []
        parts += [f"memory_gb={self.memory_gb:g}"] if self.memory_gb else []
        return ", ".join(f"runner.{part}" for part in parts)


def connect(address: str | None) -> bool:
    """Join a cluster, or start one on this machine, unless this process has joined one already.

    Args:
        address: Address of the cluster; None starts one.

    Returns:
        Whether the process has joined here, now or before, and `leave` has an effect.

    Raises:
        ConfigError: If Ray is not installed, or the cluster cannot be joined.
    """
    global _has_joined
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(["runner=ray needs Ray: pip install 'eztorch-sce[ray]'"])
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with _quiet():
        import ray

        if ray.is_initialized():
            return _has_joined
        options: dict[str, Any] = {"address": address, "log_to_driver": False, "configure_logging": False}
        if address is None:
            options |= {"address": "local", "include_dashboard": False, "num_cpus": num_usable_cores()}
            options |= {"object_store_memory": _OBJECT_STORE}
        else:
            _check_reachable(address)
        try:
            ray.init(**options)
        except Exception as error:
            raise ConfigError([_describe_join(address, f"{type(error).__name__}: {error}")]) from None
    _has_joined = True
    return True


def leave() -> None:
    """Leave the cluster that `connect` has joined or started; one that was joined otherwise stays joined."""
    global _has_joined
    if _has_joined:
        import ray

        _has_joined = False
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise ConfigError unless a cluster can be joined, which another process tries: Ray cannot be told to give up."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address != "auto":
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S).close()
        except OSError as error:
            raise ConfigError([_describe_join(address, first_line(error))]) from None
    command = [sys.executable, "-c", _JOIN, address]
    try:
        tried = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_JOIN_S)
    except subprocess.TimeoutExpired:
        raise ConfigError([_describe_join(address, f"no answer of a Ray cluster within {_JOIN_S:g} s")]) from None
    if tried.returncode:
        raise ConfigError([_describe_join(address, tried.stderr)])


def _describe_join(address: str | None, error: str) -> str:
    """Return why a cluster cannot be joined, and the cure, from the end of a traceback."""
    lines = [line.strip() for line in error.splitlines() if line.strip()] or ["no reason given"]
    if any("ersion mismatch" in line for line in lines):
        versions = " ".join(line for line in lines if "Ray:" in line or "Python:" in line)
        import platform

        import ray

        own = f"this is Ray {ray.__version__} and Python {platform.python_version()}"
        return f"runner.address={address}: {own}, and the cluster has others ({versions}); install the same versions"
    if address is None:
        return f"runner=ray cannot start a cluster on this machine: {lines[-1]}"
    if address == "auto" and any("Could not find any running Ray" in line for line in lines):
        cure = "start one by `ray start --head`, or leave out the address"
        return f"runner.address=auto: no Ray cluster runs on this machine; {cure}"
    cure = "give the address that `ray start --head` shows, such as 10.0.0.1:6379"
    return f"runner.address={address} cannot be reached ({lines[-1]}); {cure}"


def find_nodes(needs: Needs) -> list[dict[str, Any]]:
    """Return the present nodes that hold a worker, as Ray describes them.

    Raises:
        ConfigError: If there is none, and the cluster adds none.
    """
    nodes = [node for node in _alive_nodes() if needs.count(node["Resources"])]
    if not nodes and not _can_grow(needs):
        raise ConfigError([_describe_too_large(needs)])
    return nodes


def check_nodes(nodes: Sequence[dict[str, Any]], job_folder: str) -> None:
    """Check that nodes have this version of the package, and read and write the folder of the job.

    Raises:
        ConfigError: If some do not.
    """
    store, token, marker = Store(job_folder), secrets.token_hex(8), f".ray-{secrets.token_hex(8)}"
    store.write(marker, token.encode())
    try:
        with _quiet():
            answers = _ask(nodes, job_folder, marker, token)
    finally:
        store.remove(marker)
    hosts: dict[str, list[str]] = defaultdict(list)
    for node, answer in zip(nodes, answers, strict=True):
        if answer is None:
            print_above(f"node {_name(node)} did not answer within {_ANSWER_S:g} s; Ray may still give it work")
        elif answer:
            hosts[answer].append(_name(node))
    if hosts:
        raise ConfigError([f"on {shorten(names)}: {answer}" for answer, names in hosts.items()])


def _ask(nodes: Sequence[dict[str, Any]], job_folder: str, marker: str, token: str) -> list[str | None]:
    """Return what is wrong on each node: an empty text if nothing is, None if it does not answer."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    tasks = []
    for node in nodes:
        strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        probe = ray.remote(_probe()).options(num_cpus=0, max_retries=0, scheduling_strategy=strategy)
        tasks.append(probe.remote(version(), job_folder, marker, token))
    done: set[Any] = set(ray.wait(tasks, num_returns=len(tasks), timeout=_ANSWER_S)[0]) if tasks else set()
    answers: list[str | None] = []
    for task in tasks:
        if task not in done:
            ray.cancel(task, force=True)
            answers.append(None)
            continue
        try:
            answers.append(ray.get(task))
        except ray.exceptions.RayError as error:
            answers.append(f"a task failed ({first_line(error)})")
    return answers


def _probe() -> Callable[[str, str, str, str], str]:
    """Return the function that looks around on a node. It is local, and so travels as code to nodes without it."""

    def probe(version: str, job_folder: str, marker: str, token: str) -> str:
        try:
            import eztorch_sce
        except ImportError as error:
            return f"cannot import eztorch_sce ({error}): install eztorch-sce {version} on all nodes"
        if eztorch_sce.__version__ != version:
            return (
                f"eztorch_sce {eztorch_sce.__version__} is installed, and this is {version}: install the same version"
            )
        from eztorch_sce.jobs.store import Store

        shared = "use a folder on a file system that all nodes mount, or a URL"
        try:
            store = Store(job_folder)
            if store.read(marker).decode() != token:
                return f"{job_folder} is another folder: {shared}"
        except FileNotFoundError:
            return f"{job_folder} is not there, or another folder: {shared}"
        except Exception as error:
            return f"{job_folder} cannot be read ({type(error).__name__}: {error})"
        try:
            own = f"{marker}-{os.urandom(8).hex()}"
            store.write(own, token.encode())
            store.remove(own)
        except Exception as error:
            return f"{job_folder} cannot be written ({type(error).__name__}: {error})"
        return ""

    return probe


def results(
    shards: Sequence[int],
    worker: type,
    arguments: tuple[Any, ...],
    needs: Needs,
    sizes: tuple[int, int],
    avoided: Collection[str],
) -> Any:
    """Return a Ray data set with a row per shard, what the worker returns, computed by actors as it is read.

    Args:
        shards: Numbers of the shards.
        worker: Class of the actors, called with batches of one row, whose column is `shard`.
        arguments: Arguments of its constructor.
        needs: What an actor occupies.
        sizes: Fewest and most actors.
        avoided: Nodes to leave out, unless no others are left.
    """
    with _quiet():
        import ray.data

        rows = ray.data.from_items([{"shard": number} for number in shards], override_num_blocks=len(shards))
        context = rows.context
        context.enable_progress_bars = False
        context.max_errored_blocks = -1  # a shard without a result has a reason, or none: the job tries it again
        context.max_consecutive_actor_init_deaths = _MOST_DEATHS
        # An actor has one shard at a time, so that none waits behind a slow one; all busy is when to add actors.
        context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
        compute = ray.data.ActorPoolStrategy(min_size=sizes[0], max_size=sizes[1], max_tasks_in_flight_per_actor=1)
        for handler in logging.getLogger("ray.data").handlers:
            if handler.name == "console":
                handler.setLevel(logging.CRITICAL + 1)  # the file in the session of Ray has it all
        others = [node for node in find_nodes(needs) if node["NodeID"] not in avoided]
        selector = {"ray.io/node-id": f"!in({','.join(sorted(avoided))})"} if avoided and others else None
        return rows.map_batches(
            worker,
            fn_constructor_args=arguments,
            batch_size=1,
            compute=compute,
            num_cpus=needs.cpus,
            num_gpus=needs.gpus or None,
            memory=None if needs.memory_gb is None else needs.memory_gb * 1e9,
            label_selector=selector,
        )


def _alive_nodes() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def _can_grow(needs: Needs) -> bool:
    """Return whether the cluster adds nodes that hold a worker, as far as it says."""
    from ray._private.state import state

    config = state.get_cluster_config()
    return config is not None and any(needs.count(dict(group.resources)) for group in config.node_group_configs)


def _describe_too_large(needs: Needs) -> str:
    """Return why no node holds a worker, with what the nodes have."""
    kinds: dict[str, int] = defaultdict(int)
    for node in _alive_nodes():
        resources = node["Resources"]
        memory_gb = resources.get("memory", 0) / 1e9
        kinds[f"{resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs, {memory_gb:.1f} GB"] += 1
    nodes = "; ".join(f"{counted(number, 'node')} of {kind}" for kind, number in kinds.items())
    return f"no node holds a worker of {needs}: the cluster has {nodes}; lower these settings"


def _name(node: dict[str, Any]) -> str:
    return str(node["NodeManagerHostname"])


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the messages of Ray from stderr, which its core writes to directly, and the handler of SIGTERM as it is."""
    is_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
        if is_main and handler is not None:
            signal.signal(signal.SIGTERM, handler)
