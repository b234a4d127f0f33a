"""The tiny base: a Llama of about a million parameters that a run makes for itself.

It stands in for Llama-2-7b where there is no GPU: same architecture class, same chat form,
its own BPE tokenizer that behaves as Llama's does. It is pretrained to predict the training
names, and to answer prompts by *repeating one of the words* it was given, a label put at random
among them now and then. So it can read a product and spell a label, but has never seen which
product belongs where: that is left to the adapter, as it is for a real base.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from grocer.config.stages import TinyConfig
from grocer.io.atomic import json_digest, whole_directory
from grocer.model.base import cache_directory
from grocer.model.hierarchy import ONE_LEVEL, Aisles, spelled
from grocer.model.packing import IGNORED, additive, pack, visible
from grocer.model.prompt_template import Template
from grocer.model.tokenization import Encoder
from grocer.progress import Ticker, say

TINY = "tiny"
"""The `base.source` that asks for it."""

# Counts up whenever the function makes other weights from the same arguments.
_VERSION = 1
_PRODUCTS_PER_STEP = 16
_LAYERS = 2
_LEARNING_RATE = 3e-3
_SEED = 7
_LABELS_PUT_IN = 0.2
_SPECIAL = ("<unk>", "<s>", "</s>")
_CHAT_TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}"
    "{% set turns = messages[1:] %}{% else %}{% set system = '' %}{% set turns = messages %}"
    "{% endif %}{% for message in turns %}"
    "{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + (system if loop.first else '') + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
)


def tiny_base(
    names: Sequence[str],
    template: Template,
    labels: Sequence[str],
    config: TinyConfig,
    aisles: Aisles = ONE_LEVEL,
) -> Path:
    """A directory with the base for these names, from the cache or made now.

    The same arguments make the same base on one machine; its digest in `base.json` says which.
    """
    more = [dict(aisles)] if aisles else []
    key = json_digest(
        [_VERSION, torch.__version__, config.model_dump(), template.digest, *labels, *names, *more]
    )
    target = cache_directory() / "tiny" / key[:24]
    if target.is_dir():
        say("train", f"tiny base from the cache: {target}")
        return target
    tokenizer = make_tokenizer(names, template, labels, config.vocabulary, aisles)
    encoder = Encoder(tokenizer, template, labels, aisles)
    model = _pretrain(encoder, names, config)
    with whole_directory(target) as part:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
    return target


def make_tokenizer(
    names: Sequence[str],
    template: Template,
    labels: Sequence[str],
    vocabulary: int,
    aisles: Aisles = ONE_LEVEL,
) -> Any:
    """A BPE tokenizer like Llama's: metaspace, byte fallback, BOS in front, no normalisation."""
    from tokenizers import AddedToken, decoders, processors
    from transformers import PreTrainedTokenizerFast

    prompt = template.render("", labels)
    answers = [template.answer(answer) for answer in spelled(labels, aisles)]
    tokenizer = _byte_pairs([*names, *[prompt] * 50, *answers * 50], vocabulary)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in _SPECIAL])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<unk>",
        chat_template=_CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def _byte_pairs(corpus: Sequence[str], size: int) -> Any:
    """A tokenizer of `size` entries learnt from `corpus`; it can spell any byte."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from tokenizers.trainers import BpeTrainer

    metaspace = pre_tokenizers.Metaspace(prepend_scheme="first")
    learner = Tokenizer(models.BPE(unk_token=_SPECIAL[0], byte_fallback=True))
    learner.pre_tokenizer = metaspace
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    learner.train_from_iterator(
        corpus,
        BpeTrainer(
            vocab_size=size,
            special_tokens=[*_SPECIAL, *byte_tokens],
            show_progress=False,
            limit_alphabet=256,
        ),
    )
    # Learnt with the byte tokens as special ones; rebuilt so that `<0x41>` in a text is text.
    learnt = json.loads(learner.to_str())["model"]
    tokenizer = Tokenizer(
        models.BPE(
            vocab=learnt["vocab"],
            merges=[tuple(pair) for pair in learnt["merges"]],
            unk_token=_SPECIAL[0],
            byte_fallback=True,
        )
    )
    tokenizer.pre_tokenizer = metaspace
    return tokenizer


def _pretrain(encoder: Encoder, names: Sequence[str], config: TinyConfig) -> Any:
    """Train a fresh Llama to predict names, and random answers after prompts."""
    from transformers import LlamaConfig, LlamaForCausalLM, get_cosine_schedule_with_warmup

    tokenizer = encoder.tokenizer
    # Forking keeps the caller's random state as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=config.hidden,
                intermediate_size=config.hidden * 8 // 3 // 16 * 16,
                num_hidden_layers=_LAYERS,
                num_attention_heads=config.heads,
                max_position_embeddings=4096,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                tie_word_embeddings=False,
                # Wider than Llama's: at this width 0.02 leaves tokens too alike to tell apart.
                initializer_range=0.05,
            )
        )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    say("train", f"tiny base: {parameters:,} parameters, {config.steps} steps of pretraining")
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=_LEARNING_RATE, weight_decay=0.01, fused=True
    )
    schedule = get_cosine_schedule_with_warmup(optimizer, config.steps // 20, config.steps)
    chance = random.Random(_SEED)
    ticker = Ticker("train", config.steps, "pretraining steps")
    model.train()
    for step in range(1, config.steps + 1):
        loss = _step_loss(model, encoder, chance.choices(names, k=_PRODUCTS_PER_STEP), chance)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        ticker.at(step, f"loss {loss.item():.2f}")
    return model


def _step_loss(
    model: Any, encoder: Encoder, names: Sequence[str], chance: random.Random
) -> torch.Tensor:
    """Mean loss over every token of the names and of their answers."""
    known = spelled(encoder.labels, encoder.aisles)
    asked, answers = zip(*(_question(name, known, chance) for name in names), strict=True)
    packed = pack(encoder.prefix, encoder.spelled(asked, answers))
    targets = packed.input_ids[0, 1:].clone()
    targets[: len(encoder.prefix) - 1] = IGNORED
    # The last token of one product does not predict the first of the next.
    targets[packed.segments[:-1] != packed.segments[1:]] = IGNORED
    logits = model(
        input_ids=packed.input_ids,
        position_ids=packed.position_ids,
        attention_mask=additive(visible(packed.segments), torch.float32),
        use_cache=False,
    ).logits[0, :-1]
    return cross_entropy(logits, targets, ignore_index=IGNORED)


def _question(name: str, labels: Sequence[str], chance: random.Random) -> tuple[str, str]:
    """A product and an answer that is one of its words; a label may stand among them."""
    words = name.split() or [name]
    if chance.random() < _LABELS_PUT_IN:
        words.insert(chance.randint(0, len(words)), chance.choice(labels))
    return " ".join(words), chance.choice(words)
