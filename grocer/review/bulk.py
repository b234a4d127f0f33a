"""The review queue of a bulk run: the rows that are not confident enough to be final."""

import tempfile
from pathlib import Path

from grocer.inference.known import read_state
from grocer.io.storage import Storage
from grocer.review.formats import write_csv
from grocer.review.queue import build_queue, classified

SUFFIX = "-review.csv"


def write_bulk_queue(out: str) -> int:
    """Write the review queue of the merged output at `out` to `out`-review.csv.

    Returns:
        The number of names in it. Nothing is written if the run had no confidence limit.
    """
    state = read_state(out)
    if not state.min_probability:
        return 0
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder, f"output{Path(out).suffix}")
        Storage(out, setting="--out").get(local)
        queue = build_queue(classified(local, state.column))
        page = Path(folder, "queue.csv")
        write_csv(queue, (), page)
        Storage(f"{out}{SUFFIX}", setting="--out").put(page)
    return len(queue)
