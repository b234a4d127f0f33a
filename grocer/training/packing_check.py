"""Check that a base gives packed products the same probabilities as single ones.

Training packs products after a shared prefix, and scoring does the same with a cached prefix. Both
are exact for plain attention with position ids, such as Llama's. They are wrong for sliding windows
shorter than a prompt, ALiBi, recurrent states and other additions to attention, and nothing else
would report it: the loss and the probabilities would only be worse.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grocer.errors import ModelError
from grocer.inference.prefix_cache import PrefixCachedModel, TrieQuery
from grocer.model.attention import pack_layout, packed_forward, use_packed_attention
from grocer.model.packing import pack
from grocer.model.prompts.tokenization import Encoder

MAX_DIFFERENCE = {torch.float32: 0.001, torch.float16: 0.03, torch.bfloat16: 0.1}
"""Limit by compute dtype: root mean square of the difference of logits, relative to their standard
deviation over the vocabulary."""
# What a forward pass raises about arguments of a form that the architecture does not support.
_UNSUPPORTED = (AttributeError, IndexError, RuntimeError, TypeError, ValueError)


def require_exact_packing(model: Any, encoder: Encoder, names: Sequence[str]) -> None:
    """Compare the logits of `names`, packed and alone, at all completion tokens.

    Args:
        model: the base, without adapter.
        names: products of different lengths, the longest included.

    Afterwards the model uses packed attention, as training and scoring require.

    Raises:
        ModelError: they differ, the base does not accept packed sequences, or a prompt can have
            more tokens than the base has positions or its sliding window holds.
    """
    _require_room(model, encoder, "max_position_embeddings", "positions")
    training, dtype = model.training, model.get_input_embeddings().weight.dtype
    model.eval()
    try:
        with torch.inference_mode():
            difference = _difference(model, encoder, names)
    except torch.OutOfMemoryError:
        raise
    except _UNSUPPORTED as error:
        raise ModelError(
            f"the base does not accept packed products ({type(error).__name__}: {error}); "
            "choose another base.source, such as a model of Llama's architecture"
        ) from error
    finally:
        model.train(training)
    limit = MAX_DIFFERENCE[dtype]
    if not difference <= limit:  # NaN fails too
        raise ModelError(
            f"the base gives packed products other probabilities than single ones (relative "
            f"difference {difference:.2g}, limit {limit:g}): its attention has, for example, a "
            "sliding window or ALiBi; choose another base.source, such as a model of Llama's "
            "architecture"
        )
    # Names that come later can be longer than these.
    _require_room(model, encoder, "sliding_window", "a sliding window")


def _require_room(model: Any, encoder: Encoder, setting: str, what: str) -> None:
    """Raise a ModelError if the longest possible prompt exceeds a limit of the base."""
    limit = getattr(model.config.get_text_config(), setting, None)
    completion = max(len(ids) for each in encoder.completions for ids in each.sequences)
    name = encoder.template.max_name_tokens
    longest = len(encoder.prefix) + name + len(encoder.close) + completion
    if limit is not None and longest > limit:
        raise ModelError(
            f"a prompt with its completion has up to {longest} tokens, but the base has {what} for "
            f"{limit} ({setting}); lower prompt.max_name_tokens or set prompt.template=short"
        )


def _difference(model: Any, encoder: Encoder, names: Sequence[str]) -> float:
    """Return the larger relative difference of the training and the scoring pass."""
    suffixes = encoder.suffixes(names)
    labels = [i % len(encoder.labels) for i in range(len(names))]
    completions = [encoder.label_tokens[label] for label in labels]
    products = [[*s, *c] for s, c in zip(suffixes, completions, strict=True)]
    alone = []
    for product, completion in zip(products, completions, strict=True):
        ids = torch.tensor([[*encoder.prefix, *product]], device=model.device)
        logits = model(input_ids=ids, use_cache=False).logits[0].float()
        alone.append(logits[-len(completion) - 1 : -1])
    packed = _packed_logits(model, encoder.prefix, products, [*map(len, completions)])
    expected = torch.cat(alone)
    differences = [packed - expected, _scoring_difference(model, encoder, suffixes, labels, alone)]
    return max(float(d.square().mean().sqrt()) for d in differences) / float(
        expected.std(dim=1).mean()
    )


def _packed_logits(
    model: Any, prefix: Sequence[int], products: Sequence[Sequence[int]], targets: Sequence[int]
) -> Tensor:
    """Return the logits [completion tokens, vocabulary] of a pack, as training computes them.

    Args:
        targets: number of completion tokens at the end of each product.
    """
    packed = pack(prefix, products)
    ends = zip(packed.last_tokens.tolist(), targets, strict=True)
    rows = [row for last, count in ends for row in range(last - count, last)]
    inputs = {name: ids.to(model.device) for name, ids in vars(packed).items()}
    layout = pack_layout(inputs["sizes"], len(prefix))
    use_packed_attention(model)
    output = packed_forward(
        model, inputs, layout, torch.tensor(rows, device=model.device), use_cache=False
    )
    logits: Tensor = output.logits[0].float()
    return logits


def _scoring_difference(
    model: Any,
    encoder: Encoder,
    suffixes: Sequence[Sequence[int]],
    labels: Sequence[int],
    alone: Sequence[Tensor],
) -> Tensor:
    """Return the differences after a cached prefix, at branching nodes on each label's path."""
    trie = encoder.trie
    queries = [TrieQuery(i, "", suffix, trie) for i, suffix in enumerate(suffixes)]
    budget = sum(len(suffix) + len(trie.tokens) for suffix in suffixes)
    scoring = PrefixCachedModel(model, encoder.prefix, [trie], budget)
    differences = []
    for batch, logits in scoring.edge_logits(queries):
        for query, edges in zip(batch, logits, strict=True):
            for node in trie.edge_node[trie.paths[:, labels[query.item]] == 1]:
                siblings = np.flatnonzero(trie.edge_node == node)
                token = trie.nodes[node]
                depth = 0 if token == -1 else trie.depths[token]
                expected = alone[query.item][depth, trie.edge_token[siblings]].cpu()
                differences.append(torch.from_numpy(edges[siblings]).float() - expected)
    return torch.cat(differences)
