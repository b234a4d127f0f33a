"""The normal form of product names, by which duplicates and corrections are matched."""

import html
import unicodedata

from grocer.model.prompts.template import MAX_NAME_CHARACTERS, clean, limit_marks

# Removed without a space, because they are inside words: apostrophes and trade marks.
_REMOVED = str.maketrans("", "", "'’‘‛ʼʻ`´′®™©℠")
# Latin, Greek and Cyrillic accents only: in other scripts a combining mark changes the word.
_ACCENTS = dict.fromkeys(range(0x0300, 0x0370))


def normalise(name: str) -> str:
    """Return a name's normal form: words in lower case, separated by single spaces (NFKC).

    HTML entities are decoded, and `&` becomes `and`. Apostrophes, trade marks, accents and format
    characters are removed; control characters, other punctuation and symbols become spaces. A
    name with only punctuation keeps it. Idempotent, and independent of the locale.

    `Ben & Jerry’s®  Half-Baked` -> `ben and jerrys half baked`
    """
    text = limit_marks(html.unescape(name).translate(_REMOVED))
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    text = text.translate(_ACCENTS).replace("&", " and ")
    text = "".join(" " if unicodedata.category(c) == "Cc" else c for c in text)
    line = "".join(c for c in text if unicodedata.category(c)[0] != "C")
    words = "".join(" " if unicodedata.category(c)[0] in "PS" else c for c in line)
    return unicodedata.normalize("NFKC", limit_marks(" ".join(words.split() or line.split())))


def name_key(name: str) -> str:
    """Return the normal form of a name as every prompt shows it, which identifies an example."""
    return normalise(clean(name)[:MAX_NAME_CHARACTERS].rstrip() or "?")
