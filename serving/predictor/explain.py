"""Which words moved an answer: each name scored again without each of its words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grocer.config.deployment import ServingConfig
from serving.predictor.batching import Batcher
from serving.predictor.errors import Refusal
from serving.predictor.protocol import Ask


def variants(name: str) -> tuple[list[str], list[str]]:
    """A name's words, and the name without each of them."""
    words = name.split()
    return words, [" ".join(words[:i] + words[i + 1 :]) for i in range(len(words))]


async def explain(
    ask: Ask, labels: Sequence[str], batcher: Batcher, config: ServingConfig
) -> dict[str, Any]:
    """`{"explanations": [{"department", "probability", "words": [{"word", "effect"} …]}]}`.

    A word's effect is the answer's probability with it minus the probability without it, so
    above 0 it spoke for the answer. Words act together: effects need not add up to anything.
    All variants share forward passes. Where departments have aisles, it is about the department.

    Raises:
        Refusal: 400 too many names, or words in one; 429, 503, 504 as for an answer.
    """
    if len(ask.names) > config.explain_items:
        raise Refusal(400, f"instances: at most {config.explain_items} items to explain")
    split = [variants(name) for name in ask.names]
    for i, (words, _) in enumerate(split):
        if len(words) > config.explain_words:
            raise Refusal(400, f"instances[{i}]: at most {config.explain_words} words to explain")
    asked = [
        text for name, (_, left) in zip(ask.names, split, strict=True) for text in (name, *left)
    ]
    scores = await batcher.probabilities(asked, config.deadline_seconds)
    found = scores.probabilities
    explanations, at = [], 0
    for words, _ in split:
        best = int(found[at].argmax())
        whole = float(found[at, best])
        without = found[at + 1 : at + 1 + len(words), best].tolist()
        effects = [
            {"word": word, "effect": round(whole - value, 6)}
            for word, value in zip(words, without, strict=True)
        ]
        explanations.append(
            {"department": labels[best], "probability": round(whole, 6), "words": effects}
        )
        at += 1 + len(words)
    return {"explanations": explanations}
