"""Processes that end together: an error of one process ends all processes of a command, and is printed once.

The processes watch each other through a store of torch.distributed, beside all collectives: each has a thread that
writes a heartbeat, follows that of the next process, and looks for a failure. No collective needs to time out.
This module does not import torch, so that errors in settings are printed without it.
"""

import ctypes
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import Popen
from typing import Any

from eztorch_sce import signals
from eztorch_sce.errors import ConfigError, Stopped
from eztorch_sce.failures import Failure, has_printed, is_of_another, marked, print_errors_once, to_print
from eztorch_sce.launch import find_launch, process_number

_POLL_S = 0.25  # between two looks for a failure
_BEAT_S = 1.0  # between two heartbeats
_DEAD_S = 60.0  # without a heartbeat, a process on another machine counts as dead; on this one, its number tells
_DOUBT_S = 4.0  # the same once a collective has failed, which nearly always means that a process is dead
_OWN_FAULT_S = 1.0  # for a process to fail by itself, as all do if a setting is invalid, before it learns of another
_ANSWER_S = 10.0  # for the others to learn of a failure
_GRACE_S = 15.0  # for the main thread to leave what it does; then its process is ended where it is


class _Ended(BaseException):
    """Raised in the main thread by the watching thread. Not an Exception, so that handlers of those let it pass."""


@contextmanager
def together() -> Iterator[None]:
    """End all processes of the command within if one of them fails, in which case each raises an error.

    Inside another such context, and in a process that is alone, this does nothing. The processes are connected by
    `connect`. When the block ends without an error, each process waits for the others.
    """
    global _session, _num_sessions
    if _session is not None:
        yield
        return
    has_printed()  # or nobody will: an earlier error was caught
    _session, _num_sessions = Session(_num_sessions), _num_sessions + 1
    session = _session
    try:
        try:
            yield
            session.finish()
        except BaseException as error:
            session.ending = True
            raised = session.end(error)
            if raised is error:
                raise
            raise raised from None
    finally:
        session.close()
        _session = None


def connect(store: Any, process: int, num_processes: int, started: Sequence["Popen[bytes]"] = ()) -> None:
    """Let the processes of the current command watch each other, from now on.

    Args:
        store: A store of torch.distributed that they share.
        process: Number of this process.
        num_processes: Number of all processes.
        started: Processes that this one has started.
    """
    if _session is not None and _session.store is None:
        _session.connect(store, process, num_processes, started)


def disconnect() -> None:
    """Stop watching: the other processes do not exist."""
    if _session is not None:
        _session.close()
        _session.store = None


def wait_for_all(name: str, at_most_s: float = float("inf")) -> bool:
    """Wait until every process has come here, and return whether they have. Outside `together`, return at once.

    Args:
        name: Name of the place.
        at_most_s: Seconds to wait for them.
    """
    return _session is None or _session.store is None or _session.meet(name, at_most_s)


def number_of_command() -> int:
    """Return the number of the current command, which is the same in all processes."""
    return 0 if _session is None else _session.number


class LiveStore:
    """A store that says in a Python error that process 0, which may hold it, is gone. Torch would print a C++ stack.

    Args:
        store: A store of torch.distributed.
    """

    def __init__(self, store: Any) -> None:
        self._store, self.place_of_holder = store, ""

    def __getattr__(self, name: str) -> Any:
        if _is_gone(self.place_of_holder):
            raise ConnectionError("process 0 is gone")
        return getattr(self._store, name)


class Session:
    """A command that runs in several processes, as this process sees it.

    Args:
        number: Number of the command in this process, the same in all of them.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.store: Any = None
        self.process, self.num_processes = 0, 1
        self.started: Sequence[Popen[bytes]] = ()
        self.failure: Failure | None = None
        self.ending = False
        self.main_thread = threading.get_ident()
        self.stopped = threading.Event()
        self.thread: threading.Thread | None = None
        self.beat_of_next, self.changed, self.looked = "", time.monotonic(), time.monotonic()
        self.printed = threading.Event()  # by another process
        self.of_all = False  # whether all processes failed alike, so that nobody is left waiting in a collective

    def connect(self, store: Any, process: int, num_processes: int, started: Sequence["Popen[bytes]"]) -> None:
        """Begin to watch the other processes."""
        self.store = LiveStore(store)
        self.process, self.num_processes, self.started = process, num_processes, started
        self.thread = threading.Thread(target=self._watch, name="eztorch_sce watches processes", daemon=True)
        self.thread.start()

    def meet(self, name: str, at_most_s: float = float("inf"), may_stop: bool = True) -> bool:
        """Wait until every process has come here, and return whether they have; one that fails interrupts the wait."""
        stop = time.monotonic() + at_most_s
        self.store.set(f"{name}/{self.process}", "")
        while not self.store.check(self._keys(name)):
            if self.failure is not None:
                raise _Ended
            if may_stop:
                signals.poll()
            if time.monotonic() > stop:
                return False
            time.sleep(0.02)
        return True

    def finish(self) -> None:
        """Wait for the others at the end. The first process, which may hold the store, leaves last."""
        if self.store is None:
            return
        self.meet("finished", may_stop=False)  # the work is done
        self.ending = True  # from here on, a store that is gone means that the first process has left
        with suppress(Exception):
            self.store.set(f"left/{self.process}", "")
            if self.process == 0:
                self._wait(lambda: self.store.check(self._keys("left")), _ANSWER_S)

    def close(self) -> None:
        """Stop watching."""
        self.stopped.set()
        if self.thread is not None and self.thread is not threading.current_thread():
            self.thread.join()

    def end(self, error: BaseException) -> BaseException:
        """Return the error to raise in this process, after all processes have learned of the failure."""
        if isinstance(error, SystemExit) and error.code in (None, 0):
            return error
        if self.store is None:
            self._connect_late(error)
        if self.store is None:
            return error
        print_errors_once()
        try:
            raised = self._end(error)
        except Exception:  # the store is gone with the first process
            failure = self.failure or Failure.of_death(0)
            speaks = failure.process == self.process or self._speaks_for_dead(failure)
            raised = marked(failure.error(), of_another=not speaks)
        if is_of_another(raised) and not self.of_all:
            _leave_groups()
        return raised

    def _end(self, error: BaseException) -> BaseException:
        own = None if isinstance(error, _Ended) else Failure.of(error, self.process)
        if own is not None and _is_consequence(error):
            own = self.failure or self._find_cause() or own
        elif isinstance(error, Stopped):  # a launcher terminates the processes that are left as soon as one has died
            own = self.failure or self._death() or own
        if own is not None and self.failure is None:
            self.failure = self._publish(own)
        failure = self.failure
        assert failure is not None
        is_own = own is not None and own.process == self.process and own[1:] == failure[1:]
        raised = error if is_own else failure.error()
        if is_own:
            self.store.set(f"answer/{self.process}", json.dumps(own))
        if self._is_reporter(failure):
            self._report(raised, failure)
        else:
            self.printed.wait(2 * _ANSWER_S)
            marked(raised, of_another=True)
        return raised

    def _is_reporter(self, failure: Failure) -> bool:
        """Return whether this process prints the failure: the one that failed, or the first to speak for a dead one."""
        return failure.process == self.process or self._speaks_for_dead(failure)

    def _speaks_for_dead(self, failure: Failure) -> bool:
        if failure != Failure.of_death(failure.process):
            return False
        me = str(self.process)
        try:
            return bool(self.store.compare_set("reporter", "", me).decode() == me)
        except Exception:  # the store died with the process
            return self.process == (1 if failure.process == 0 else 0)

    def _report(self, raised: BaseException, failure: Failure) -> None:
        """Wait until the others know of the failure, and mark the error as the one to print."""
        others = [number for number in range(self.num_processes) if number not in (self.process, failure.process)]
        answers = [f"answer/{number}" for number in others]
        self._wait(lambda: self.store.check(answers), _ANSWER_S)
        texts = [self.store.get(key).decode() if self.store.check([key]) else "" for key in answers]
        same = [bool(text) and json.loads(text)[1:] == [failure.kind, failure.words] for text in texts]
        of_all = failure.process == self.process and all(same)
        self.store.set("outcome", "all" if of_all else "one")
        if not of_all:
            _leave_groups()
        store, left = self.store, [f"left/{number}" for number in others]

        def announce() -> None:
            store.set("printed", "")
            self._wait(lambda: store.check(left), _ANSWER_S)  # with this process, the store might go

        to_print(raised, None if of_all else failure.process, announce)
        if isinstance(raised, SystemExit) and not isinstance(raised, Stopped):  # which Python does not print
            print(f"eztorch-sce: process {failure.process} {failure.words[0]}", file=sys.stderr, flush=True)
            has_printed()

    def _publish(self, failure: Failure) -> Failure:
        """Report a failure to the other processes, and return the first that any of them reported."""
        first: bytes = self.store.compare_set("failed", "", json.dumps(failure))
        return Failure(*json.loads(first))

    def _find_cause(self) -> Failure | None:
        """Return the failure that another process has reported or a process that died, if there is one."""
        beats = self._texts("alive")
        stop = time.monotonic() + _DOUBT_S
        while time.monotonic() < stop:
            if self.store.check(["failed"]):
                return Failure(*json.loads(self.store.get("failed")))
            if (death := self._death()) is not None:
                return death
            time.sleep(0.1)
        silent = [n for n, beat in self._texts("alive").items() if beats[n] == beat and n != self.process]
        return Failure.of_death(silent[0]) if silent else None

    def _death(self) -> Failure | None:
        """Return the failure of a process of this machine that is gone, if there is one."""
        gone = [number for number, place in self._texts("place").items() if _is_gone(place)]
        return Failure.of_death(gone[0]) if gone else None

    def _texts(self, name: str) -> dict[int, str]:
        """Return what each process has written, or an empty text."""
        keys = dict(enumerate(self._keys(name)))
        return {n: self.store.get(key).decode() if self.store.check([key]) else "" for n, key in keys.items()}

    def _connect_late(self, error: BaseException) -> None:
        """Connect to the processes that were launched together with this one, which fails before it has met them."""
        launch = find_launch()
        if launch is None or launch.world_size == 1:
            return
        number, store = process_number(), None
        if launch.launcher != "mpirun":
            from eztorch_sce import distributed

            with suppress(ConfigError, RuntimeError):
                store = distributed.reach_store()
        if store is None:
            marked(error, of_another=launch.launcher == "mpirun" and number > 0, process=number or None)
        else:
            self.connect(store, number, launch.world_size, ())

    def _watch(self) -> None:
        """Write heartbeats, and look for a failure."""
        last_beat = 0.0
        try:
            self.store.set(f"place/{self.process}", _place())
            while not self.stopped.wait(_POLL_S):
                if self.store.check(["failed"]):
                    return self._notice(Failure(*json.loads(self.store.get("failed"))))
                if self.process > 0 and not self.store.place_of_holder:
                    self.store.place_of_holder = self._texts("place")[0]
                if time.monotonic() - last_beat >= _BEAT_S:
                    last_beat = time.monotonic()
                    self.store.set(f"alive/{self.process}", str(last_beat))
                    for number in self._dead():
                        self._publish(Failure.of_death(number))
        except Exception:  # the store is gone with the process that held it
            if not self.ending:
                self._notice(Failure.of_death(0))
        return None

    def _dead(self) -> list[int]:
        """Return the processes that died, of the next one and those that this process has started."""
        number = (self.process + 1) % self.num_processes
        place, beat = (self._texts(name)[number] for name in ("place", "alive"))
        now = time.monotonic()
        if beat != self.beat_of_next or not beat or now - self.looked > 10 * _BEAT_S:  # or this process was stopped
            self.beat_of_next, self.changed = beat, now
        self.looked = now
        dead = [number] if _is_gone(place) or now - self.changed > _DEAD_S else []
        dead += [n for n, process in enumerate(self.started, start=1) if process.poll() not in (None, 0)]
        return [n for n in dead if not self.store.check([f"finished/{n}"]) and not self.store.check([f"answer/{n}"])]

    def _notice(self, failure: Failure) -> None:
        """Interrupt the main thread, unless it fails or ends by itself, and wait until the failure is printed."""
        if self.stopped.wait(_OWN_FAULT_S) or failure.process == self.process:
            return
        if not self.ending:
            self.failure = failure
            self._interrupt()
        try:
            if not self.store.check([f"answer/{self.process}"]):
                self.store.set(f"answer/{self.process}", "")
            if not self._is_reporter(failure):
                self._wait(lambda: self.stopped.is_set() or self.store.check(["printed"]), 2 * _ANSWER_S)
                self.of_all = self.store.check(["outcome"]) and self.store.get("outcome") == b"all"
                self.store.set(f"left/{self.process}", "")
        except Exception:  # the store is gone with the process that held it
            pass
        self.printed.set()
        stop = time.monotonic() + _GRACE_S
        while not self.ending and not self.stopped.wait(1.0):
            self._interrupt()
            if time.monotonic() > stop and not self.ending:
                self._exit(failure)

    def _interrupt(self) -> None:
        _abort_collectives()
        _raise_in(self.main_thread, _Ended)

    def _exit(self, failure: Failure) -> None:
        """End this process, whose main thread does not come back from what it does."""
        with suppress(Exception):
            if self._speaks_for_dead(failure):
                print(f"eztorch-sce: {failure.error()}", file=sys.stderr, flush=True)
                self.store.set("printed", "")
        os._exit(1)

    def _keys(self, name: str) -> list[str]:
        return [f"{name}/{number}" for number in range(self.num_processes)]

    @staticmethod
    def _wait(is_over: Callable[[], bool], at_most_s: float) -> None:
        stop = time.monotonic() + at_most_s
        while not is_over() and time.monotonic() < stop:
            time.sleep(0.05)


def _is_consequence(error: BaseException) -> bool:
    """Return whether an error is nearly always due to another process: a collective that failed."""
    names = {kind.__name__ for kind in type(error).__mro__}
    text = str(error)
    return "RuntimeError" in names and (
        "DistError" in names or any(word in text for word in ("gloo", "NCCL", "onnect"))
    )


def _place() -> str:
    """Return the machine, and the number of this process on it; an empty text if the system does not tell."""
    with suppress(OSError):
        machine = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{machine} {os.readlink('/proc/self/ns/pid')} {os.getpid()}"
    return ""


def _is_gone(place: str) -> bool:
    """Return whether the process at a place on this machine has ended."""
    machine, _, number = place.rpartition(" ")
    if not machine or machine != _place().rpartition(" ")[0]:
        return False
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def _raise_in(thread: int, kind: type[BaseException]) -> None:
    """Raise an exception in another thread as soon as it runs Python code."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(kind))


def _abort_collectives() -> None:
    """Abort the collectives on GPUs, which otherwise wait for processes that do not come.

    Those of gloo end as the process that failed leaves its groups or exits, since its connections close.
    """
    torch, dist = sys.modules.get("torch"), sys.modules.get("torch.distributed")
    if torch is None or dist is None or not torch.cuda.is_available() or not dist.is_initialized():
        return
    with suppress(AttributeError):  # names of torch that are not public
        for group in list(dist.distributed_c10d._world.pg_map):
            with suppress(RuntimeError):  # a group without a backend for GPUs
                group._get_backend(torch.device("cuda")).abort()


def _leave_groups() -> None:
    """Leave the process groups, in which others may wait for this process. Later commands form new ones."""
    _abort_collectives()
    distributed = sys.modules.get("eztorch_sce.distributed")
    with suppress(Exception):
        if distributed is not None:
            distributed.leave()


_session: Session | None = None  # the command that runs
_num_sessions = 0
