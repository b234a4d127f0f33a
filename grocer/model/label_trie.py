"""The label set as a trie of token sequences, and the probabilities of constrained decoding.

A label is spelled as it was trained: the completion's tokens, EOS included. Decoding that may
only follow the trie chooses at each node among the node's children; a node with one child
leaves no choice and has probability 1. So a label's probability is the product, over the
branching nodes on its path, of the softmax over that node's children, and the model's logits
are needed at branching nodes only. For most label sets that is the root alone.

This is the probability with which constrained sampling draws the label. It is not the whole
sequence's likelihood renormalised over the labels, and the two can rank labels differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from grocer.errors import ConfigError

MIN_LABELS, MAX_LABELS = 2, 500


@dataclass(frozen=True)
class LabelTrie:
    """Labels, and where their token sequences part.

    `tokens` are the tokens that a forward pass needs beyond the prompt: every node below the
    root that is a branching node or leads to one, parents before children. `parents[i]` is the
    index in `tokens` of node i's parent, or -1 for the root. `nodes` are the branching nodes,
    each the index in `tokens` of the node whose logits decide, or -1 for the root (the last
    token of the prompt). An edge is one child of a branching node: `edge_node[e]` indexes
    `nodes`, `edge_token[e]` is the child's token.
    """

    labels: tuple[str, ...]
    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    depths: tuple[int, ...]
    nodes: tuple[int, ...]
    edge_node: NDArray[np.int64]
    edge_token: NDArray[np.int64]
    paths: NDArray[np.float64] = field(repr=False)
    """[edges, labels]: 1 where the label's sequence takes the edge."""

    def log_probabilities(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log-probability of each label.

        Args:
            logits: [items, edges], finite; the logit of `edge_token[e]` at `nodes[edge_node[e]]`.

        Returns:
            [items, labels]; `exp` of a row sums to 1.
        """
        # The edges of a node stand together.
        first = np.searchsorted(self.edge_node, np.arange(len(self.nodes)))
        total = np.logaddexp.reduceat(logits, first, axis=1)
        chosen: NDArray[np.float64] = (logits - total[:, self.edge_node]) @ self.paths
        return chosen

    def ancestors(self) -> NDArray[np.bool_]:
        """[tokens, tokens]: whether column's node is row's node or lies above it."""
        above = np.eye(len(self.tokens), dtype=bool)
        for index, parent in enumerate(self.parents):
            if parent >= 0:
                above[index] |= above[parent]
        return above


def label_trie(labels: Sequence[str], sequences: Sequence[Sequence[int]]) -> LabelTrie:
    """Build the trie of `labels`, whose completions are `sequences` (EOS included).

    Raises:
        ConfigError: fewer than 2 or more than 500 labels, a label twice, an empty sequence, or
            labels that the tokenizer can't tell apart (equal, or one the beginning of another).
    """
    _refuse(labels, sequences)
    children: dict[tuple[int, ...], list[int]] = {}
    for sequence in sequences:
        for depth, token in enumerate(sequence):
            following = children.setdefault(tuple(sequence[:depth]), [])
            if token not in following:
                following.append(token)
    branching = [path for path, following in children.items() if len(following) > 1]
    # Depth first, so that a parent always stands before its children.
    needed = sorted({path[:depth] for path in branching for depth in range(1, len(path) + 1)})
    place = {path: index for index, path in enumerate(needed)} | {(): -1}
    edges = [(node, token) for node, path in enumerate(branching) for token in children[path]]
    paths = np.zeros((len(edges), len(labels)))
    for edge, (node, token) in enumerate(edges):
        step = (*branching[node], token)
        for label, sequence in enumerate(sequences):
            paths[edge, label] = tuple(sequence[: len(step)]) == step
    return LabelTrie(
        labels=tuple(labels),
        tokens=tuple(path[-1] for path in needed),
        parents=tuple(place[path[:-1]] for path in needed),
        depths=tuple(len(path) for path in needed),
        nodes=tuple(place[path] for path in branching),
        edge_node=np.array([node for node, _ in edges], dtype=np.int64),
        edge_token=np.array([token for _, token in edges], dtype=np.int64),
        paths=paths,
    )


def _refuse(labels: Sequence[str], sequences: Sequence[Sequence[int]]) -> None:
    if not MIN_LABELS <= len(labels) <= MAX_LABELS:
        raise ConfigError(
            f"{len(labels)} labels; a label set has {MIN_LABELS} to {MAX_LABELS}. "
            "Choose another catalogue.label or check the department column"
        )
    assert len(labels) == len(sequences)
    known: dict[tuple[int, ...], str] = {}
    for label, sequence in zip(labels, sequences, strict=True):
        if not sequence:
            raise ConfigError(f"label {label!r} has no tokens; rename it")
        if tuple(sequence) in known:
            other = known[tuple(sequence)]
            raise ConfigError(
                f"labels {other!r} and {label!r} are the same tokens; rename one of them"
            )
        known[tuple(sequence)] = label
    for label, sequence in zip(labels, sequences, strict=True):
        for depth in range(1, len(sequence)):
            if (shorter := known.get(tuple(sequence[:depth]))) is not None:
                raise ConfigError(
                    f"label {shorter!r} is the beginning of {label!r} and nothing closes it; "
                    "rename one of them"
                )
