"""Prompts in the base's own chat template: prefix, product name and close are tokenized apart.

The prefix is the rendered chat up to the product name, the close is the rest. Special tokens are
recognised in these two only. A name is tokenized as plain text, and control tokens that a
tokenizer finds in it nevertheless are removed, so a name cannot end the user's turn.
"""

import re
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from grocer.errors import ConfigError, ModelError
from grocer.model.prompts.template import PROBE_NAMES, Template

_NAME = "\ue000"
"""Stands for the product name while the chat is rendered."""
_FIXED = {
    # Llama 3 inserts the current date unless it is given one.
    "date_string": "26 Jul 2024",
    # Any other use of the current date is an error, because prompts must not change over time.
    "strftime_now": None,
    # Qwen 3 opens a block of reasoning unless it is told not to.
    "enable_thinking": False,
}
_MARKUP = re.compile(r"<.+>|\[.+\]", re.DOTALL)
_OTHER_TEMPLATES = "set prompt.template=short or prompt.template=llama2-chat"


class ChatPrompt:
    """Token ids of prompts in the chat template of `tokenizer`.

    A name is tokenized after the text that precedes it in the user's message, so that its tokens
    are those of a name in the middle of a text. BOS occurs only if the chat template has it.

    Raises:
        ModelError: no chat template, or one that cannot separate the name from the rest.
        ConfigError: a label contains a control token.
    """

    def __init__(self, tokenizer: Any, template: Template, labels: Sequence[str]) -> None:
        self._tokenizer, self._template = tokenizer, template
        added = tokenizer.added_tokens_decoder
        self._control = frozenset(tokenizer.all_special_ids).union(
            i for i, token in added.items() if token.special or _MARKUP.fullmatch(token.content)
        )
        texts = [text for text in tokenizer.convert_ids_to_tokens(sorted(self._control)) if text]
        _require_plain(labels, texts)
        before, after = render_chat(tokenizer, template, labels)
        self.prefix = tuple(self._tokenize_chat(before.rstrip(" ")))
        self.close = self._close(after)
        self._lead = template.user.partition("{product_name}")[0]
        self._lead_ids = tokenize(tokenizer, [self._lead.rstrip()])[0]
        # Completions are tokenized after the text between the last special token and the answer.
        self._tail = after[max((after.rfind(t) + len(t) for t in texts if t in after), default=0) :]
        if self._tail and not self._tail[-1].isspace():
            self._tail += " "
        self._tail_ids = tokenize(tokenizer, [self._tail.rstrip(" ")])[0]
        self.encode(PROBE_NAMES)

    def encode(self, names: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each name's whole prompt.

        Raises:
            ModelError: the tokenizer merges a name with the text before it.
        """
        texts = [self._lead + self._template.slot(name) for name in names]
        start = len(self._lead_ids)
        prompts = []
        for ids in tokenize(self._tokenizer, texts):
            if ids[:start] != self._lead_ids:
                raise ModelError(
                    "the base's tokenizer merges a product name with the text before it; "
                    + _OTHER_TEMPLATES
                )
            name = [i for i in ids[start:] if i not in self._control]
            prompts.append([*self.prefix, *name, *self.close])
        return prompts

    def encode_with(self, names: Sequence[str], completions: Sequence[str]) -> list[list[int]]:
        """Return the token ids of prompts with any completion, without EOS."""
        pairs = zip(self.encode(names), completions, strict=True)
        return [[*prompt, *self.completion(text)] for prompt, text in pairs]

    def completion(self, label: str) -> tuple[int, ...]:
        """Return the token ids of a completion, without EOS."""
        (ids,) = tokenize(self._tokenizer, [self._tail + self._template.completion(label)])
        start = len(self._tail_ids)
        if ids[:start] != self._tail_ids:
            raise ModelError(
                f"the base's tokenizer merges the end of the prompt with label {label!r}; "
                + _OTHER_TEMPLATES
            )
        return tuple(i for i in ids[start:] if i not in self._control)

    def _close(self, after: str) -> list[int]:
        """Return the token ids of the text after the name, tokenized after a letter."""
        start, ids = self._tokenize_chat("a"), self._tokenize_chat("a" + after)
        if not after.strip() or ids[: len(start)] != start:
            raise ModelError(
                "the base's chat template does not separate a product name from the answer; "
                + _OTHER_TEMPLATES
            )
        return ids[len(start) :]

    def _tokenize_chat(self, text: str) -> list[int]:
        """Return the token ids of text of the chat template; special tokens are recognised."""
        ids: list[int] = self._tokenizer(
            text, add_special_tokens=False, split_special_tokens=False, verbose=False
        )["input_ids"]
        return ids


def tokenize(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of each text, without BOS; special tokens stay plain text."""
    encoded = tokenizer(
        list(texts),
        add_special_tokens=False,
        split_special_tokens=True,
        return_attention_mask=False,
        verbose=False,
    )
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def render_chat(tokenizer: Any, template: Template, labels: Sequence[str]) -> tuple[str, str]:
    """Return the text of the chat before and after the product name.

    The instruction is the system message, or the start of the user's message if the chat template
    rejects or ignores system messages.

    Raises:
        ModelError: no chat template, or it cannot render the prompt.
    """
    if not tokenizer.chat_template:
        raise ModelError(f"the base has no chat template; {_OTHER_TEMPLATES}")
    system, user = template.messages(_NAME, labels)
    reason = "it omits or repeats the messages"
    for messages in (
        [{"role": "system", "content": system}, {"role": "user", "content": user}],
        [{"role": "user", "content": f"{system}\n\n{user}"}],
    ):
        try:
            text = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, **_FIXED
            )
        except TemplateError as error:
            reason = str(error)
            continue
        except TypeError as error:
            dated = "strftime_now" in str(tokenizer.chat_template)
            reason = "it inserts the current date" if dated else str(error)
            continue
        if text.count(_NAME) == 1 and text.count(system) == 1:
            before, _, after = text.partition(_NAME)
            return before, after
    raise ModelError(f"the base's chat template cannot be used: {reason}; {_OTHER_TEMPLATES}")


def _require_plain(labels: Sequence[str], control: Sequence[str]) -> None:
    """Raise a ConfigError about the first label that contains a control token."""
    for label in labels:
        for token in control:
            if token in label:
                raise ConfigError(
                    f"label {label!r} contains {token!r}, a control token of the base; rename it"
                )
