"""A line for work that is silent otherwise, such as the import of a large package."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from eztorch_sce.launch import is_first_process

_PATIENCE_S = 2.0


@contextmanager
def announced(text: str, after_s: float = _PATIENCE_S) -> Iterator[None]:
    """Print a line on stderr, in the first process, if the block takes longer than `after_s` seconds.

    >>> with announced("loading PyTorch"):
    ...     quick = sum(range(10))
    """
    timer = threading.Timer(after_s, lambda: print(f"{text} ...", file=sys.stderr, flush=True))
    timer.daemon = True
    if is_first_process():
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
