"""The record of the run that the gate judged last, with which the cool-down starts."""

from grocer.errors import ArtifactError
from grocer.io.storage import Storage
from grocer.release.lineage import Lineage


def read_last_attempt(state: str) -> Lineage | None:
    """Return the run that was judged last; None if there is none yet.

    Raises:
        ArtifactError: it is not readable.
    """
    storage = Storage(state, setting="state", step="check_due", error=ArtifactError)
    if not storage.exists(Lineage.FILE):
        return None
    return Lineage.parse(storage.read_bytes(Lineage.FILE), f"{state}/{Lineage.FILE}")


def record_attempt(lineage: Lineage, state: str) -> None:
    """Write a run that was judged to `state`, where `read_last_attempt` finds it.

    Raises:
        OutputError: `state` cannot be written.
    """
    storage = Storage(state, setting="state", step="record_attempt")
    storage.write_bytes(lineage.model_dump_json().encode(), Lineage.FILE)
