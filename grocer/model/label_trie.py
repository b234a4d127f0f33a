"""Token trie of a label set, and the label probabilities of constrained decoding.

The sequence of a label is its completion as trained: token ids, EOS included. Constrained
decoding follows the trie: at each node it chooses among the node's children, and a node with one
child has nothing to choose. The probability of a label is therefore the product, over the
branching nodes on its path, of the softmax over that node's children. The model's logits are
needed at branching nodes only; for most label sets the root is the only one.

This is the probability with which constrained sampling draws the label. It is not the likelihood
of the whole sequence renormalised over the labels; the two can rank labels differently.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from grocer.errors import ConfigError

MIN_LABELS, MAX_LABELS = 2, 500


class Choice(NamedTuple):
    """One choice of constrained decoding: the token that follows `offset` tokens."""

    offset: int
    candidates: tuple[int, ...]
    token: int


@dataclass(frozen=True)
class LabelTrie:
    """The branching nodes of a trie and the tokens that lead to them.

    Nodes below the root that branch, or lead to a node that branches, are the tokens which a
    forward pass needs after the prompt. An edge is one child of a branching node.
    """

    tokens: tuple[int, ...]
    """Token id of each needed node, parents before children."""
    parents: tuple[int, ...]
    """Index in `tokens` of each node's parent; -1 for the root."""
    depths: tuple[int, ...]
    """Depth of each node; children of the root have 1."""
    nodes: tuple[int, ...]
    """Index in `tokens` of each branching node; -1 for the root (the prompt's last token)."""
    edge_node: NDArray[np.int64]
    """[edges]: index in `nodes` of the edge's parent, ascending."""
    edge_token: NDArray[np.int64]
    """[edges]: token id of the edge's child."""
    paths: NDArray[np.float64] = field(repr=False)
    """[edges, labels]: 1 if the label's sequence takes the edge."""

    def log_probabilities(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the log-probability of each label.

        Args:
            logits: [items, edges], finite: the logit of `edge_token[e]` at `nodes[edge_node[e]]`.

        Returns:
            [items, labels]; `exp` of a row sums to 1.
        """
        first = np.searchsorted(self.edge_node, np.arange(len(self.nodes)))
        total = np.logaddexp.reduceat(logits, first, axis=1)
        return (logits - total[:, self.edge_node]) @ self.paths

    def choices(self, label: int) -> list[Choice]:
        """Return the choices that constrained decoding makes on the way to a label, in order."""
        result = []
        for edge in np.flatnonzero(self.paths[:, label]):
            inside = self.edge_node == self.edge_node[edge]
            index = self.nodes[self.edge_node[edge]]
            depth = 0 if index < 0 else self.depths[index]
            candidates = tuple(self.edge_token[inside].tolist())
            result.append(Choice(depth, candidates, int(self.edge_token[edge])))
        return sorted(result)

    def ancestors(self) -> NDArray[np.bool_]:
        """Return [tokens, tokens]: whether the column's node is the row's node or an ancestor."""
        result = np.eye(len(self.tokens), dtype=bool)
        for index, parent in enumerate(self.parents):
            if parent >= 0:
                result[index] |= result[parent]
        return result


def label_trie(labels: Sequence[str], sequences: Sequence[Sequence[int]]) -> LabelTrie:
    """Build the trie of `labels`, whose completions are `sequences` (EOS included).

    Raises:
        ConfigError: fewer than 2 or more than 500 labels, an empty sequence, or sequences that
            are equal or a prefix of one another.
    """
    _require_distinct(labels, sequences)
    children: dict[tuple[int, ...], list[int]] = {}
    for sequence in sequences:
        for depth, token in enumerate(sequence):
            tokens = children.setdefault(tuple(sequence[:depth]), [])
            if token not in tokens:
                tokens.append(token)
    branching = [path for path, tokens in children.items() if len(tokens) > 1]
    # Lexicographic order is depth first, so a parent precedes its children.
    needed = sorted({path[:depth] for path in branching for depth in range(1, len(path) + 1)})
    position = {path: index for index, path in enumerate(needed)} | {(): -1}
    edges = [(node, token) for node, path in enumerate(branching) for token in children[path]]
    paths = np.zeros((len(edges), len(labels)))
    for edge, (node, token) in enumerate(edges):
        step = (*branching[node], token)
        for label, sequence in enumerate(sequences):
            paths[edge, label] = tuple(sequence[: len(step)]) == step
    return LabelTrie(
        tokens=tuple(path[-1] for path in needed),
        parents=tuple(position[path[:-1]] for path in needed),
        depths=tuple(len(path) for path in needed),
        nodes=tuple(position[path] for path in branching),
        edge_node=np.array([node for node, _ in edges], dtype=np.int64),
        edge_token=np.array([token for _, token in edges], dtype=np.int64),
        paths=paths,
    )


def _require_distinct(labels: Sequence[str], sequences: Sequence[Sequence[int]]) -> None:
    if not MIN_LABELS <= len(labels) <= MAX_LABELS:
        raise ConfigError(
            f"{len(labels)} labels: expected {MIN_LABELS} to {MAX_LABELS}; "
            "choose another catalogue.label or check the department column"
        )
    known: dict[tuple[int, ...], str] = {}
    for label, sequence in zip(labels, sequences, strict=True):
        if not sequence:
            raise ConfigError(f"label {label!r} has no tokens; rename it")
        if (other := known.get(tuple(sequence))) is not None:
            raise ConfigError(
                f"labels {other!r} and {label!r} have the same tokens; rename one of them"
            )
        known[tuple(sequence)] = label
    for label, sequence in zip(labels, sequences, strict=True):
        for depth in range(1, len(sequence)):
            if (shorter := known.get(tuple(sequence[:depth]))) is not None:
                raise ConfigError(
                    f"label {shorter!r} is a token prefix of label {label!r}; rename one of them"
                )
