"""Files that killed workers and earlier settings have left in the folder of a job."""

from contextlib import suppress

from eztorch_sce.files import remove_all_partials
from eztorch_sce.jobs.job import OUTPUTS, Job
from eztorch_sce.jobs.receipts import name_of, read_receipts


def remove_leftovers(job: Job) -> None:
    """Remove partial files, outputs that no receipt names, and receipts of shards that the job does not have.

    Call it while the lock of the job is held. A worker that an earlier driver has left behind may lose a file that it
    is writing; its shard is then tried again.
    """
    with suppress(FileNotFoundError):
        if job.store.path is not None:
            remove_all_partials(job.store.path)
    receipts = read_receipts(job.store)
    for number in [number for number in receipts if number >= job.count]:
        job.store.remove(name_of(number))
        del receipts[number]
    named = {receipt.output for receipt in receipts.values()}
    for name in job.store.names(OUTPUTS):
        if name not in named:
            job.store.remove(f"{OUTPUTS}/{name}")
