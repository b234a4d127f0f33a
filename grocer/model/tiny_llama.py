"""Tiny base model: a Llama of about a million parameters that a run pretrains itself.

It replaces Llama-2-7b on machines without a GPU: same architecture, same chat format, and a BPE
tokenizer that behaves like Llama's. Pretraining teaches it to predict product names, and to
complete prompts by *repeating one of the words* of the name, into which a random label is
inserted now and then. It can therefore read names and spell labels, but has never seen which
product belongs to which label; that is what the adapter learns.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_model
from torch.nn.functional import cross_entropy

from grocer.config.stages import TinyConfig
from grocer.io.atomic import cached_directory, json_digest
from grocer.model.attention import pack_layout, packed_forward, use_packed_attention
from grocer.model.hierarchy import ONE_LEVEL, Aisles, completion_labels
from grocer.model.packing import IGNORE_INDEX, pack
from grocer.model.prompts.template import Template
from grocer.model.prompts.tokenization import Encoder
from grocer.model.sources.find import cache_directory
from grocer.progress import Ticker, say

TINY = "tiny"
"""The value of `base.source` that selects this model."""

# Part of the cache key; increase it when the same arguments give other weights.
_VERSION = 1
_PRODUCTS_PER_STEP = 16
_LAYERS = 2
_LEARNING_RATE = 3e-3
_SEED = 7
_LABEL_INSERTION_RATE = 0.2
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
    """Return the directory of the base for these names; pretrain it if it is not cached.

    The same arguments give the same base on one machine; `base.json` records its digest.
    """
    hierarchy = [dict(aisles)] if aisles else []
    arguments = [config.model_dump(), template.digest, *labels, *names, *hierarchy]
    key = json_digest([_VERSION, torch.__version__, *arguments])
    target = cache_directory() / "tiny" / key[:24]
    if target.is_dir():
        say("train", f"tiny base from the cache: {target}")
        return target

    def pretrain(part: Path) -> None:
        tokenizer = make_tokenizer(names, template, labels, config.vocabulary, aisles)
        model = _pretrain(Encoder(tokenizer, template, labels, aisles), names, config)
        # Unlike save_pretrained, also in a process that is not the first of a distributed training.
        model.config.update({"architectures": [type(model).__name__], "dtype": "float32"})
        model.config.save_pretrained(part)
        save_model(model, str(part / "model.safetensors"), metadata={"format": "pt"})
        tokenizer.save_pretrained(part)

    return cached_directory(target, pretrain)


def make_tokenizer(
    names: Sequence[str],
    template: Template,
    labels: Sequence[str],
    vocabulary: int,
    aisles: Aisles = ONE_LEVEL,
) -> Any:
    """Train a BPE tokenizer like Llama's: metaspace, byte fallback, BOS, no normalisation."""
    from tokenizers import AddedToken, decoders, processors
    from transformers import PreTrainedTokenizerFast

    prompt = template.render("", labels)
    completions = [template.completion(name) for name in completion_labels(labels, aisles)]
    tokenizer = _train_bpe([*names, *[prompt] * 50, *completions * 50], vocabulary)
    space = decoders.Replace("▁", " ")
    tokenizer.decoder = decoders.Sequence(
        [space, decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
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


def _train_bpe(corpus: Sequence[str], size: int) -> Any:
    """Train a tokenizer of `size` entries that can encode any byte."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from tokenizers.trainers import BpeTrainer

    metaspace = pre_tokenizers.Metaspace(prepend_scheme="first")
    trained = Tokenizer(models.BPE(unk_token=_SPECIAL[0], byte_fallback=True))
    trained.pre_tokenizer = metaspace
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = BpeTrainer(
        vocab_size=size,
        special_tokens=[*_SPECIAL, *byte_tokens],
        show_progress=False,
        limit_alphabet=256,
    )
    trained.train_from_iterator(corpus, trainer)
    # Rebuild it without special tokens, so that `<0x41>` in a text stays plain text.
    model = json.loads(trained.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    bpe = models.BPE(vocab=model["vocab"], merges=merges, unk_token=_SPECIAL[0], byte_fallback=True)
    tokenizer = Tokenizer(bpe)
    tokenizer.pre_tokenizer = metaspace
    return tokenizer


def _pretrain(encoder: Encoder, names: Sequence[str], config: TinyConfig) -> Any:
    """Train a new Llama to predict names, and a random word of the name after each prompt."""
    from transformers import LlamaConfig, LlamaForCausalLM, get_cosine_schedule_with_warmup

    tokenizer = encoder.tokenizer
    # Keep the caller's random state.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=config.hidden,
                intermediate_size=config.hidden * 8 // 3 // 16 * 16,
                num_hidden_layers=_LAYERS,
                num_attention_heads=config.hidden // 32,
                max_position_embeddings=4096,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                tie_word_embeddings=False,
                # Llama's 0.02 leaves embeddings of this width too similar.
                initializer_range=0.05,
            )
        )
    use_packed_attention(model)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    say("train", f"tiny base: {parameters:,} parameters, {config.steps} steps of pretraining")
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=_LEARNING_RATE, weight_decay=0.01, fused=True
    )
    schedule = get_cosine_schedule_with_warmup(optimizer, config.steps // 20, config.steps)
    rng = random.Random(_SEED)
    ticker = Ticker("train", config.steps, "pretraining steps")
    model.train()
    for step in range(1, config.steps + 1):
        loss = _step_loss(model, encoder, rng.choices(names, k=_PRODUCTS_PER_STEP), rng)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        ticker.at(step, f"loss {loss.item():.2f}")
    return model


def _step_loss(
    model: Any, encoder: Encoder, names: Sequence[str], rng: random.Random
) -> torch.Tensor:
    """Return the mean loss over all tokens of names and completions."""
    labels = completion_labels(encoder.labels, encoder.aisles)
    products, words = zip(*(_example(name, labels, rng) for name in names), strict=True)
    packed = pack(encoder.prefix, encoder.suffixes_with(products, words))
    targets = packed.input_ids[0, 1:].clone()
    targets[: len(encoder.prefix) - 1] = IGNORE_INDEX
    # The last token of one product does not predict the first of the next.
    targets[packed.last_tokens[:-1]] = IGNORE_INDEX
    layout = pack_layout(packed.sizes, len(encoder.prefix))
    rows = torch.nonzero(targets != IGNORE_INDEX).flatten()
    logits = packed_forward(model, vars(packed), layout, rows, use_cache=False).logits[0]
    return cross_entropy(logits, targets[rows])


def _example(name: str, labels: Sequence[str], rng: random.Random) -> tuple[str, str]:
    """Return a name, sometimes with a label inserted, and one of its words as the completion."""
    words = name.split() or [name]
    if rng.random() < _LABEL_INSERTION_RATE:
        words.insert(rng.randint(0, len(words)), rng.choice(labels))
    return " ".join(words), rng.choice(words)
