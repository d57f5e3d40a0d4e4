"""The processes of a training: how Lightning learns of them, and what it leaves to `distributed` and `together`."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch.distributed as dist
from pytorch_lightning.plugins.environments import LightningEnvironment  # type: ignore[attr-defined]
from pytorch_lightning.strategies import DDPStrategy, Strategy
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher

from eztorch_sce import distributed
from eztorch_sce.errors import Stopped
from eztorch_sce.launch import local_rank
from eztorch_sce.training.config import TrainerConfig


def strategy_for(settings: TrainerConfig) -> Strategy | str:
    """Return the strategy for a number of processes."""
    if settings.world_size == 1:
        return "auto"
    if settings.is_sharded:
        from eztorch_sce.training.sharding import ShardedStrategy  # takes a second to import

        return ShardedStrategy()
    # Buffers need no broadcast: the queue is the same in all processes, and batch norm statistics are either
    # synchronized already or meant to differ by device.
    return GroupStrategy(forward_sync_buffers=False)


def environment_for(per_node: int) -> LightningEnvironment:
    """Return the processes that exist, if there is a process group, or those that Lightning starts."""
    return JoinedProcesses(per_node) if dist.is_initialized() else LightningEnvironment()


class GroupStrategy(DDPStrategy):
    """DDP over the process group of `distributed`, whose processes watch each other, whoever started them."""

    def _configure_launcher(self) -> None:
        assert self.cluster_environment is not None
        self._launcher = Launcher(self.cluster_environment, self.num_processes, self.num_nodes)

    def setup_environment(self) -> None:
        """Form the group if there is none, before Lightning would."""
        if not dist.is_initialized():
            assert isinstance(self._launcher, Launcher)
            distributed.form_group(self.node_rank * self.num_processes + self.local_rank, self._launcher.procs)
        super().setup_environment()


class Launcher(_SubprocessScriptLauncher):
    """Start the processes as Lightning does, but leave it to themselves how they end.

    Lightning kills all, without a word, within 5 seconds after one has failed.
    """

    def launch(self, function: Callable[..., Any], *args: Any, trainer: pl.Trainer | None = None, **kwargs: Any) -> Any:
        """Start the processes unless they exist, then call the function."""
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            self._call_children_scripts()
        return function(*args, **kwargs)

    def kill(self, signum: Any) -> None:
        """Do nothing: the processes end by themselves."""


class JoinedProcesses(LightningEnvironment):
    """Processes that have formed a group, whoever started them. Lightning knows those of a few launchers only.

    Args:
        per_node: Processes per machine.
    """

    def __init__(self, per_node: int) -> None:
        super().__init__()
        self.per_node = per_node

    @property
    def creates_processes_externally(self) -> bool:
        """Return True: the processes exist."""
        return True

    def world_size(self) -> int:
        """Return the number of processes on all machines."""
        return distributed.world_size()

    def global_rank(self) -> int:
        """Return the rank of this process."""
        return distributed.rank()

    def local_rank(self) -> int:
        """Return the number of this process on its machine, which is that of its GPU."""
        return local_rank()

    def node_rank(self) -> int:
        """Return the number of this machine."""
        return distributed.rank() // self.per_node

    def teardown(self) -> None:
        """Keep the variables of the launcher, which later commands of the same script need."""


@contextmanager
def signals_left_to_us(trainer: pl.Trainer) -> Iterator[None]:
    """Keep Lightning from handling signals: `signals` notes them, and `distributed.exchange` tells all processes.

    On SIGTERM, Lightning talks to other processes in its handler, and ends with status 0. It also makes each process
    wait for its device in every step to learn whether another received SIGTERM, and it turns a KeyboardInterrupt, which
    a callback may raise, into an exit.
    """
    connector: Any = trainer._signal_connector
    connector.register_signal_handlers = connector.teardown = lambda: None
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt) and not isinstance(error, Stopped):
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, handler)  # which Lightning ignores from then on
            raise KeyboardInterrupt from None
        raise
