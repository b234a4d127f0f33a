"""A node of a TrainJob: the command of the TrainingRuntime `grocer` of manifests/trainer.

    python -m grocer.training.node ADDRESS

ADDRESS is a directory in an object store, where the train step of the pipeline has put `splits/`
and `config.json`. The first node adds `model/`, the artifact. Kubeflow Trainer sets the variables
`PET_*`. Exit codes are those of `grocer.training.distributed`.
"""

import os
import sys
import tempfile
from pathlib import Path

from grocer.config.run import RunConfig
from grocer.errors import ArtifactError
from grocer.io.storage import Storage
from grocer.io.trees import get_tree, put_tree
from grocer.training.distributed import Node, start, user_errors


def train(address: str, node: Node) -> int:
    """Train as one node; return the exit code of `start`.

    Raises:
        GrocerError: the store cannot be reached, or the splits in it are incomplete.
    """
    storage = Storage(address, setting="train.checkpoints", step="train")
    with tempfile.TemporaryDirectory() as directory:
        splits, out = Path(directory, "splits"), Path(directory, "model")
        if problem := get_tree(storage, "splits", splits):
            raise ArtifactError(f"{address}/splits: {problem}; run the pipeline again")
        config = RunConfig.from_json(storage.read_bytes("config.json").decode())
        code = start(splits, config, out, node)
        if code == 0 and node.rank == 0:
            put_tree(out, storage, "model")
    return code


def main() -> None:
    """Run the command line; a user error exits with code 2."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m grocer.training.node ADDRESS")
    names = ("NPROC_PER_NODE", "NODE_RANK", "NNODES", "MASTER_PORT")
    processes, rank, count, port = (int(os.environ[f"PET_{name}"]) for name in names)
    node = Node(processes, rank, count, os.environ["PET_MASTER_ADDR"], port)
    with user_errors():
        sys.exit(train(sys.argv[1], node))


if __name__ == "__main__":
    main()
