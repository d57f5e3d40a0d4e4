"""Signals that ask a command to end: a handler notes them, and the work ends where it has nothing to lose.

A training saves at its next step; other work ends at its next `poll`. A thread ends the process if neither comes in
time, as when a file does not answer. It learns of a signal even while the main thread is in a library that is not
Python. This module does not import torch.
"""

import atexit
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from eztorch_sce.errors import INTERRUPTED, STOPPED, Stopped
from eztorch_sce.failures import failed_process, has_printed, is_of_another, marked
from eztorch_sce.launch import find_launch, is_first_process
from eztorch_sce.slurm import own_job, requeue

GRACE_S = 25.0
"""Default of `allow`: SLURM and Kubernetes send SIGKILL 30 s after SIGTERM."""
_SAME_PRESS_S = 0.5  # wrappers pass on the SIGINT that the terminal has sent to their child as well
# SLURM warns by the signal of --signal, LSF and SGE by SIGUSR1 or SIGUSR2; SIGXCPU announces the end of CPU time.
_NAMES = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGINT")
_WARNINGS = (getattr(signal, "SIGUSR1", None), getattr(signal, "SIGUSR2", None))
HANDLED = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
"""The signals that ask a command to end."""
_NOTHING = "nothing is saved"
_CLOSE = 0  # what the thread receives to end: no signal has this number
_ANSWER_S = 2.0  # for a disk
_UNHANDLED = (signal.SIG_DFL, signal.default_int_handler)  # those of others are left alone, and so is SIG_IGN


def requested() -> int:
    """Return the number of the first signal that asked the current command to end, or 0."""
    return 0 if _watch is None else _watch.number


def take(number: int) -> None:
    """Note a signal that another process of the command has received."""
    if _watch is not None and not _watch.number:
        _watch.number = number
        if number != signal.SIGINT:
            _watch.tell(number)


def poll() -> None:
    """End the command if a signal asked for it. To be called between units of work that have nothing to save.

    Raises:
        Stopped: If a signal has come.
    """
    if number := requested():
        assert _watch is not None
        raise Stopped(number, _watch.left())


@contextmanager
def watched(program: str = "", is_last: bool = False) -> Iterator[None]:
    """Note the signals that ask to end, instead of ending at once, until the block ends.

    Inside another such block, in other threads than the main one, and for signals that have a handler already, this
    changes nothing. Ctrl-C raises KeyboardInterrupt as usual, except within `saving`.

    Args:
        program: Name of the program, if the block is all of it: it has done its work where a signal comes too late.
        is_last: The process ends after the block, and signals change nothing until it has, for as long as they may.

    Raises:
        Stopped: As the block does, after a line on stderr that says what is saved.
        KeyboardInterrupt: Instead of `Stopped`, after a Ctrl-C.
    """
    global _watch
    if _watch is not None:
        before = _watch.describe, _watch.grace_s
        try:
            yield
        finally:
            if _watch is not None:
                _watch.describe, _watch.grace_s = before
        return
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _watch = watch = _Watch(program)
    if is_last:
        atexit.register(ignore)
    try:
        yield
    except Stopped as error:
        if error.signal == signal.SIGINT:
            raise marked(KeyboardInterrupt(error.left), is_of_another(error), failed_process(error)) from None
        _say(error, program or "eztorch-sce")
        raise
    finally:
        _watch = None
        if is_last:
            watch.is_over = True
        else:
            watch.close()
    if watch.number and not program:
        signal.raise_signal(watch.number)  # too late for this block: it is for what follows


def keep(describe: Callable[[], str]) -> None:
    """Say what is saved if the command ends now, until the present `watched` ends.

    Args:
        describe: Returns a text such as "saved at step 40 of 100", or an empty text if nothing is saved.
    """
    if _watch is not None:
        _watch.describe = describe


@contextmanager
def saving(describe: Callable[[], str]) -> Iterator[None]:
    """Note Ctrl-C as well, until the block ends: the work within looks at `requested`, saves and raises `Stopped`.

    A second Ctrl-C ends the process at once.

    Args:
        describe: See `keep`.
    """
    if _watch is None or _watch.is_saving:
        yield
        return
    keep(describe)
    _watch.is_saving = True
    try:
        yield
    finally:
        if _watch is not None:
            _watch.is_saving = False


@contextmanager
def idle() -> Iterator[None]:
    """Let a signal end the process at once, until the block ends, as while packages are imported."""
    if _watch is not None:
        launch = find_launch()
        _watch.is_idle = launch is None or launch.world_size == 1  # or the others would wait for this process
    try:
        poll()
        yield
        poll()
    finally:
        if _watch is not None:
            _watch.is_idle = False


def _say(error: Stopped, program: str) -> None:
    """Print in one process why the command ends. Give its job back to SLURM if that has announced the end of its time.

    A command that has saved nothing is not requeued: it might never end. Nor is one after SIGTERM, which `scancel`
    sends, and preemption, which requeues by itself.
    """
    job = own_job() if error.signal in _WARNINGS and error.saved else None
    if not is_of_another(error):
        error.again = error.again if job is None else f"SLURM requeues job {job}"
        write_line(f"{program}: {error}")
        has_printed()
    if job is not None and is_first_process() and (reason := requeue(job)):
        write_line(f"{program}: scontrol requeue {job} failed ({reason}): submit the job again to go on")


def allow(seconds: float) -> None:
    """Set the time between a signal and the end of the process, unless a command that contains this one has."""
    if _watch is not None and _watch.grace_s is None:
        _watch.grace_s = seconds


@contextmanager
def sheltered() -> Iterator[None]:
    """Keep signals from the processes that the block starts, which call `ignore`. This process receives them later."""
    from multiprocessing import resource_tracker

    before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    try:
        resource_tracker.ensure_running()  # a process, too; its start unblocks two signals
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore() -> None:
    """Ignore the signals in this worker process: they reach all processes of a terminal or a job.

    The main process needs its workers until it has saved, and ends them by SIGKILL.
    """
    for number in HANDLED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)


def write_line(text: str) -> None:
    """Write a line to stderr, which may be gone with its terminal, past locks that another thread may hold."""
    with suppress(OSError):
        os.write(2, f"{text}\n".encode())


class _Watch:
    """The handlers and the thread of the outermost `watched`."""

    def __init__(self, program: str) -> None:
        self.program = program
        self.number = 0
        self.grace_s: float | None = None
        self.signaled_s = float("inf")  # time of the first signal but for Ctrl-C
        self.describe: Callable[[], str] | None = None  # says what is saved
        self.is_saving = False  # within `saving`
        self.is_idle = False  # within `idle`
        self.is_over = False  # all work is done, or given up
        self.in_handler, self.in_thread = _Presses(), _Presses()
        self.before: dict[int, Any] = {n: h for n in HANDLED if (h := signal.getsignal(n)) in _UNHANDLED}
        self.reader, self.writer = socket.socketpair()
        self.writer.setblocking(False)
        self.other_fd = signal.set_wakeup_fd(self.writer.fileno(), warn_on_full_buffer=False)
        if self.other_fd != -1:  # of an event loop, such as that of a notebook
            signal.set_wakeup_fd(self.other_fd)
        for number in self.before:
            signal.signal(number, self.handle)
        self.thread = threading.Thread(target=self.follow, name="eztorch_sce watches signals", daemon=True)
        self.thread.start()

    def release(self) -> None:
        """Put back what was there before."""
        for number, handler in self.before.items():
            if signal.getsignal(number) == self.handle:
                signal.signal(number, handler)
        if self.other_fd == -1:
            signal.set_wakeup_fd(-1)

    def close(self) -> None:
        """Put back what was there before, and end the thread."""
        self.release()
        self.tell(_CLOSE)
        self.thread.join()
        self.close_sockets()

    def close_sockets(self) -> None:
        """Close the connection to the thread."""
        self.writer.close()
        self.reader.close()

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Note a signal; the handler of all of them."""
        if self.other_fd != -1:
            self.tell(number)
        if number == signal.SIGINT and not self.is_over:
            press = self.in_handler.next()
            if (press == 1 and not self.is_saving) or (press == 2 and not self.program):
                raise KeyboardInterrupt
        self.number = self.number or number

    def tell(self, number: int) -> None:
        """Tell the thread of a signal."""
        with suppress(OSError):
            self.writer.send(bytes([number]))

    def follow(self) -> None:
        """Follow the signals, and end the process after a second Ctrl-C, or when its time is over."""
        while True:
            grace_s = GRACE_S if self.grace_s is None else self.grace_s
            left_s = self.signaled_s + grace_s - time.monotonic()
            if left_s <= 0:
                self.end(STOPPED, f"not ended within run.grace_s={grace_s:g} after a signal; {self.left() or _NOTHING}")
            self.reader.settimeout(min(left_s, 1.0))
            try:
                numbers = self.reader.recv(64)
            except TimeoutError:
                continue
            for number in numbers:
                if number == _CLOSE:
                    return
                if number == signal.SIGINT and number in self.before:
                    self.press()
                elif number in self.before:
                    self.signaled_s = min(self.signaled_s, time.monotonic())
                    if self.is_idle:
                        self.end(STOPPED, str(Stopped(number)))

    def press(self) -> None:
        """Follow a Ctrl-C."""
        press = self.in_thread.next()
        if press == 2 and self.program:
            self.end(INTERRUPTED, f"interrupted again, and ended at once; {self.left() or _NOTHING}")
        elif press == 1 and self.is_saving and is_first_process():
            write_line("\nsaving at the next step; press Ctrl-C again to end at once")

    def end(self, status: int, words: str) -> None:
        """End the process wherever its main thread is, and its worker processes."""
        if is_first_process():
            write_line(f"{self.program or 'eztorch-sce'}: {words}")
        if (module := sys.modules.get("multiprocessing")) is not None:
            for child in module.active_children():
                child.kill()
        os._exit(status)

    def left(self) -> str:
        """Return what is saved, or an empty text if nothing is or its disk does not answer."""
        texts: list[str] = []
        describe = self.describe
        if describe is not None:
            thread = threading.Thread(target=lambda: texts.append(describe()), daemon=True)
            thread.start()
            thread.join(_ANSWER_S)
        return texts[0] if texts else ""


class _Presses:
    """Ctrl-C, as one part of this module sees it."""

    def __init__(self) -> None:
        self.first_s: float | None = None

    def next(self) -> int:
        """Count a SIGINT, and return 1 for the first press, 0 for an echo of it, and 2 for a later press."""
        now = time.monotonic()
        if self.first_s is None:
            self.first_s = now
            return 1
        return 2 if now - self.first_s > _SAME_PRESS_S else 0


def _before_fork() -> None:
    """Hold back signals: Python would drop one that reaches the new process before its handlers are put back."""
    _fork.mask = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED) if _watch is not None else None


def _after_fork() -> None:
    """Let signals through again."""
    if _fork.mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _fork.mask)


def _in_forked_process() -> None:
    """Let a forked process end as usual: by SIGTERM, which multiprocessing sends to its workers."""
    global _watch
    if _watch is not None:
        watch, _watch = _watch, None
        with suppress(ValueError):  # forked by another thread
            watch.release()
        watch.close_sockets()
    _after_fork()


class _Fork(threading.local):
    """The signals that were blocked when this thread began to fork, or None if they are not held back."""

    mask: set[int | signal.Signals] | None = None


_watch: _Watch | None = None
_fork = _Fork()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_forked_process)
