"""Receipts: what a worker states about a shard that it has finished, in `receipts/` in the folder of a job."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields

from eztorch_sce.jobs.store import Store

FOLDER = "receipts"
_NUM_THREADS = 16
_DIGEST = "digest"  # key of the digest of the rest of a receipt


@dataclass(frozen=True)
class Receipt:
    """Statement that a shard is done. It is written after the output, and names it.

    Attributes:
        shard: Number of the shard.
        inputs: Digest of the records of the shard, with the sizes and times of their files.
        settings: Digest of the settings that decide the output.
        version: Version of this package.
        num_inputs: Records of the shard.
        num_outputs: Rows of the output.
        output: Name of the output in the folder of the job; it holds a digest of the content.
        failures: Reason by key of each record that has no row.
        host: Machine of the worker.
        seconds: Duration of the work.
        finished: When the work ended, in seconds since 1970.
    """

    shard: int
    inputs: str
    settings: str
    version: str
    num_inputs: int
    num_outputs: int
    output: str
    failures: dict[str, str] = field(default_factory=dict)
    host: str = ""
    seconds: float = 0.0
    finished: float = 0.0


def name_of(shard: int) -> str:
    """Return the name of the receipt of a shard.

    >>> name_of(12)
    'receipts/000012.json'
    """
    return f"{FOLDER}/{shard:06d}.json"


def write_receipt(store: Store, receipt: Receipt) -> None:
    """Write a receipt in the place of an earlier one of the shard."""
    content = asdict(receipt)
    store.write(name_of(receipt.shard), (json.dumps({**content, _DIGEST: digest_of(content)}) + "\n").encode())


def read_receipt(store: Store, shard: int) -> Receipt | None:
    """Return the receipt of a shard, or None if there is none or it is damaged."""
    try:
        content = json.loads(store.read(name_of(shard)))
        if content.pop(_DIGEST) != digest_of(content):
            return None
        receipt = Receipt(**{item.name: content[item.name] for item in fields(Receipt)})
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return receipt if receipt.shard == shard else None


def digest_of(content: object) -> str:
    """Return a digest of what JSON can hold, whatever the order of its keys."""
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def read_receipts(store: Store) -> dict[int, Receipt]:
    """Return all receipts by shard."""
    return {receipt.shard: receipt for receipt in ReceiptReader(store).changed()}


class ReceiptReader:
    """Reads the receipts of a job again and again, each of them once unless it is replaced."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._states: dict[str, str] = {}

    def changed(self) -> list[Receipt]:
        """Return the receipts that have been written since the last call, without damaged ones."""
        states = self._store.states(FOLDER)
        changed = [name for name, state in states.items() if state != self._states.get(name) and _shard_of(name) >= 0]
        self._states = states
        with ThreadPoolExecutor(_NUM_THREADS) as pool:  # a network answers after a millisecond
            receipts = pool.map(lambda name: read_receipt(self._store, _shard_of(name)), changed)
            return [receipt for receipt in receipts if receipt is not None]


def _shard_of(name: str) -> int:
    """Return the shard of the name of a receipt, or -1 for another file."""
    number = name.removesuffix(".json")
    return int(number) if name.endswith(".json") and number.isdecimal() else -1
