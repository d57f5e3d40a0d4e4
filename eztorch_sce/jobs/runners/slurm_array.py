"""The tasks of an array that submitit has started: their submission, whether they still run, and how they ended."""

import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eztorch_sce.errors import ConfigError, counted, first_line, shorten
from eztorch_sce.files import write_text
from eztorch_sce.jobs.job import JOB_FILE, Job
from eztorch_sce.jobs.store import Store
from eztorch_sce.jobs.worker import work_on
from eztorch_sce.progress import print_above

_QUEUE_S = 10.0  # between two questions to SLURM
_END_S = 10.0  # that tasks have to end after their last shard
_CANCELLED = "CANCELLED"
_STATES = {  # of SLURM, for a task without a result
    _CANCELLED: "was canceled",
    "NODE_FAIL": "lost its node",
    "OUT_OF_MEMORY": "ran out of memory: raise runner.mem_gb",
    "PREEMPTED": "was preempted, and its partition does not queue it again",
    "TIMEOUT": "ran out of time: raise runner.time_min",
}
_TOO_OFTEN = "timed-out too many times"  # as submitit says it


class ShardTask:
    """What a task calls. submitit stores it, and stores it again when it interrupts the task.

    Args:
        job_folder: Folder of the job.
        shards: Numbers of the shards.
        num_workers: Worker processes.
    """

    def __init__(self, job_folder: str, shards: Sequence[int], num_workers: int) -> None:
        self.job_folder, self.shards, self.num_workers = job_folder, list(shards), num_workers

    def __call__(self) -> dict[str, Any]:
        """Work on the shards that have no valid receipt: on all of them unless the task has been interrupted.

        Returns:
            As "failed", the reason by number of each shard that failed; as "refused", why no task can work.
        """
        host = f"on {socket.gethostname()}"
        try:
            Store(self.job_folder).read(JOB_FILE)
        except OSError as error:
            reason = f"{host}: {self.job_folder} is not seen there ({first_line(error)})"
            return {"failed": dict.fromkeys(self.shards, reason), "refused": []}
        try:
            pending = Job.open(self.job_folder).not_done(self.shards)
            return {"failed": work_on(self.job_folder, pending, self.num_workers), "refused": []}
        except ConfigError as error:
            return {"failed": {}, "refused": [f"{host}: {problem}" for problem in error.problems]}

    def checkpoint(self) -> Any:
        """Return what submitit runs when the task starts again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class _Task(NamedTuple):
    """A task: its job of submitit, and its shards."""

    job: Any
    shards: list[int]


class Array:
    """The tasks of a job that were submitted by this driver, and by earlier ones that have ended.

    Args:
        folder: Folder of the scripts, the logs and the numbers of the tasks.
        is_slurm: Whether the tasks are on a cluster, and not on this machine.
        settings: Digest of the settings of the job.
    """

    def __init__(self, folder: Path, is_slurm: bool, settings: str) -> None:
        self.folder, self.is_slurm, self.settings = folder, is_slurm, settings
        self.tasks: list[_Task] = []
        self.running: list[_Task] = []
        self._states: dict[str, str] = {}  # of SLURM, by the numbers of tasks that left no result
        self._queue: set[str] | None = None  # numbers of the tasks that SLURM knows; None before its first answer
        self._asked_s = float("-inf")

    @property
    def shards(self) -> set[int]:
        """The shards of all tasks."""
        return {number for task in self.tasks for number in task.shards}

    def follow_earlier(self) -> None:
        """Add the tasks of earlier drivers that still run; cancel those whose settings are others."""
        for file in sorted(self.folder.glob("tasks-*.json")):
            content = json.loads(file.read_text())
            tasks = [_Task(self._job(number), shards) for number, shards in content["tasks"].items()]
            running = [task for task in tasks if self._runs(task)]
            if not running:
                file.unlink()
            elif content["settings"] == self.settings:
                print_above(f"{counted(len(running), 'task')} of an earlier command still run: {_ids(running)}")
                self._add(running)
            else:
                print_above(f"canceled: tasks of an earlier command, with other settings ({_ids(running)})")
                self._cancel(running)
                file.unlink()

    def submit(self, tasks: Sequence[ShardTask], parameters: Mapping[str, Any], max_timeouts: int) -> None:
        """Submit tasks, and note their numbers.

        Raises:
            ConfigError: If SLURM refuses them.
        """
        from submitit import LocalExecutor, SlurmExecutor
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        executor_class = SlurmExecutor if self.is_slurm else LocalExecutor
        self.folder.mkdir(parents=True, exist_ok=True)
        executor = executor_class(self.folder, max_num_timeout=max_timeouts)
        executor.update_parameters(**parameters)
        before = set(self.folder.iterdir())
        try:
            with _outside_of_jobs(), contextlib.redirect_stderr(io.StringIO()):  # submitit prints the errors, too
                jobs = executor.submit_array(tasks)
        except (FailedJobError, FailedSubmissionError) as error:
            for file in set(self.folder.iterdir()) - before:
                file.unlink()
            reason = " ".join(str(error).replace("sbatch: error: ", "").split())
            cure = "; lower runner.max_tasks" if "array" in reason else ""
            raise ConfigError([f"SLURM refused the job array: {reason}{cure}"]) from None
        submitted = [_Task(job, task.shards) for job, task in zip(jobs, tasks, strict=True)]
        shards = {task.job.job_id: task.shards for task in submitted}
        write_text(self._note(submitted), json.dumps({"settings": self.settings, "tasks": shards}))
        self._add(submitted)
        if self.is_slurm:
            self._queue = (self._queue or set()) | shards.keys()
            print_above(f"submitted: {counted(len(jobs), 'task')} ({_ids(submitted)}); logs in {self.folder}")

    @contextlib.contextmanager
    def followed(self) -> Iterator[None]:
        """Follow the tasks in the block, then end those that have nothing left to do.

        If the block ends early, tasks of a cluster go on; those of this machine end, and all if one of them refuses.
        """
        try:
            yield
        except ConfigError:
            self._cancel(self.running)
            self._forget()
            raise
        except BaseException:
            if self.is_slurm and self.running:
                ids = _ids(self.running)
                print_above(
                    f"the tasks go on without this command, which follows them when it is run again; "
                    f"`scancel {ids}` ends them"
                )
            else:
                self._cancel(self.running)
            raise
        deadline = time.monotonic() + _END_S
        while self.is_running() and time.monotonic() < deadline:
            time.sleep(0.1)
        if self.is_slurm:  # a task that was preempted in its last moment waits for a turn that it does not need
            self._ask()
        self._cancel([task for task in self.tasks if self._is_listed(task)] if self.is_slurm else self.running)
        self._forget()

    def is_running(self) -> bool:
        """Return whether a task runs or waits for its turn.

        Raises:
            ConfigError: If a task refuses to work.
        """
        over = [task for task in self.running if not self._runs(task)]
        self.running = [task for task in self.running if task not in over]
        for task in over:
            result = self._result(task)
            if result is None and self.is_slurm:
                self._states[task.job.job_id] = _state(task.job.job_id)
            elif result is not None and result[0] == "success" and result[1]["refused"]:
                raise ConfigError(result[1]["refused"])
        return bool(self.running)

    def refuse_canceled(self, pending: Sequence[int]) -> None:
        """Raise ConfigError if tasks with shards that are not done were canceled: they are not wanted any more."""
        canceled = [task for task in self.tasks if self._states.get(task.job.job_id) == _CANCELLED]
        if any(not set(pending).isdisjoint(task.shards) for task in canceled):
            numbers = shorten([task.job.job_id for task in canceled])
            raise ConfigError([f"SLURM canceled tasks ({numbers}): run the same command again to go on"])

    def reasons(self) -> dict[int, str]:
        """Return why the shards of tasks that have ended may lack a receipt."""
        reasons: dict[int, str] = {}
        for task in self.tasks:
            result = self._result(task)
            if result and result[0] == "success":
                reasons |= result[1]["failed"]
            else:
                reasons |= dict.fromkeys(task.shards, self._how_it_ended(task, result[1] if result else ""))
        return reasons

    def _add(self, tasks: Sequence[_Task]) -> None:
        self.tasks += tasks
        self.running += tasks

    def _note(self, tasks: Sequence[_Task]) -> Path:
        return self.folder / f"tasks-{tasks[0].job.job_id}.json"

    def _forget(self) -> None:
        """Remove the notes about tasks, none of which is running."""
        for file in self.folder.glob("tasks-*.json"):
            file.unlink()

    def _job(self, number: str) -> Any:
        from submitit import LocalJob, SlurmJob

        return (SlurmJob if self.is_slurm else LocalJob)(self.folder, number)

    def _result(self, task: _Task) -> tuple[str, Any] | None:
        """Return "success" and what a task returned, or "error" and its traceback; None if it left neither."""
        from submitit.core.utils import pickle_load

        try:
            outcome, value = pickle_load(task.job.paths.result_pickle)
        except (OSError, EOFError):
            return None
        return outcome, value

    def _runs(self, task: _Task) -> bool:
        """Return whether a task runs, or waits to run or to run again."""
        if not self.is_slurm:
            return not task.job.done() or _is_controller(int(task.job.job_id), self.folder)
        if task.job.paths.result_pickle.exists():
            return False
        if time.monotonic() > self._asked_s + _QUEUE_S:
            self._ask()
        return self._is_listed(task)

    def _is_listed(self, task: _Task) -> bool:
        return self._queue is not None and task.job.job_id in self._queue

    def _ask(self) -> None:
        """Ask SLURM which tasks run or wait. While it does not answer, they are taken to run on."""
        answer = _queue()
        if answer is None and self._queue is None:
            raise ConfigError(["squeue does not answer: run the same command again when SLURM does"])
        self._queue = self._queue if answer is None else answer
        self._asked_s = time.monotonic()

    def _cancel(self, tasks: Sequence[_Task]) -> None:
        """End tasks, at once."""
        if not tasks:
            return
        if self.is_slurm:
            subprocess.run(["scancel", *_ids(tasks).split()], check=False, capture_output=True)
            return
        for task in tasks:
            _end_process(int(task.job.job_id))
        deadline = time.monotonic() + _END_S
        while any(not task.job.done() for task in tasks) and time.monotonic() < deadline:
            time.sleep(0.05)

    def _how_it_ended(self, task: _Task, trace: str) -> str:
        """Return in words how a task ended that returned nothing."""
        paths = task.job.paths
        host = f"on {_host_in(paths.stdout) or 'an unknown machine'}"
        if _TOO_OFTEN in trace:
            return f"{host}: its task {task.job.job_id} ran out of time again and again: raise runner.time_min"
        if trace:
            return f"{host}: {trace.strip().splitlines()[-1]}; see {paths.stderr}"
        words = _STATES.get(self._states.get(task.job.job_id, ""), "ended without a result, as when it is killed")
        log = f"see {paths.stderr}" if paths.stderr.exists() else f"it wrote no log: does the node see {self.folder}?"
        return f"{host}: its task {task.job.job_id} {words}; {log}"


@contextlib.contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """Hide the variables of the SLURM job in which this process may be, which would change what it submits."""
    from submitit.helpers import clean_env

    if "SLURM_JOB_ID" not in os.environ:
        yield
        return
    of_user = {name: value for name, value in os.environ.items() if name == "SLURM_CONF" or name.startswith("SBATCH_")}
    with clean_env():
        os.environ.update(of_user)
        yield


def _ids(tasks: Sequence[_Task]) -> str:
    """Return the numbers of tasks as `scancel` takes them: that of an array in place of its tasks."""
    return " ".join(dict.fromkeys(task.job.job_id.partition("_")[0] for task in tasks))


def _queue() -> set[str] | None:
    """Return the numbers of this user's tasks that run or wait, or None if SLURM does not answer."""
    command = ["squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%i"]
    try:
        answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return set(answer.stdout.split())


def _state(number: str) -> str:
    """Return the state of a task that has ended, which SLURM tells for some minutes; an empty text after that."""
    command = ["scontrol", "--oneliner", "show", "job", number]
    try:
        answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return ""
    found = re.search(r" JobState=(\w+)", answer.stdout)
    return found[1] if found else ""


def _host_in(log: Path) -> str:
    """Return the machine of a task, which submitit notes at its start, or an empty text."""
    try:
        found = re.findall(r"hostname=([^,)]+)", log.read_text(errors="replace"))
    except OSError:
        return ""
    return found[-1] if found else ""


def _is_controller(pid: int, folder: Path) -> bool:
    """Return whether a process is the one in which submitit runs a task on this machine."""
    try:
        os.kill(pid, 0)
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except ProcessLookupError:
        return False
    except OSError:  # a system without /proc
        return True
    return os.fsencode(folder) in words


def _end_process(pid: int) -> None:
    """Kill the process of a task on this machine, and first the one that controls it, which would start it again."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
