"""Secrets are replaced before they reach any file, database or screen.

A value is a secret when its key says so (pass, secret, token, api key, credential) or when it stands in a URL as
user-info. Numbers are kept unless the key *is* such a word: ``n_tokens: 512`` is a hyperparameter, not ``token: 512``.
What :func:`learn` has seen is a secret wherever it turns up again: in an exception's text, in a line of a log.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

MASK = "***"
#: Files of text, and of source code; larger ones are left as they are.
_TEXT = {".txt", ".log", ".yaml", ".yml", ".json", ".jsonl", ".toml", ".cfg", ".ini", ".env"}
_CODE = {".py", ".patch", ".diff"}
_TEXT_LIMIT = 8 << 20

_SECRET = r"pass|secret|token|api[_\-. ]?key|credential"
_KEY = re.compile(_SECRET, re.IGNORECASE)
_WORDS = frozenset(
    {"pass", "passwd", "password", "passphrase", "passcode", "secret", "secrets", "token", "apikey"}
    | {"credential", "credentials"}
)
#: Words of this field that contain one of those, and say nothing secret.
_HARMLESS = re.compile(
    r"tokeni[sz][a-z]*|(by|com|tres)pass(?!w)[a-z]*|pass(es|ed|ive|age|ing|_?through|_?thru)(?![a-z])"
    r"|(high|low|band|all)[_-]?pass(?![a-z])",
    re.IGNORECASE,
)
_SPLIT = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])")
_USER_INFO = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*://)[^/\s\"'<>]*@")
_ASSIGNED = re.compile(
    rf"(?P<key>[\w.\-]*(?:{_SECRET})[\w.\-]*)(?P<gap>[\"']?[ \t]*[=:][ \t]*)"
    r"(?P<value>\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'|[^\s&,;\"'\]}]+)",
    re.IGNORECASE,
)
_OPTION = re.compile(rf"(?P<key>--[\w\-]*(?:{_SECRET})[\w\-]*)(?P<gap>[ \t]+)(?P<value>[^\s\-][^\s]*)", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$|(true|false|null|none)$", re.IGNORECASE)
_NAMED = re.compile(r"\$\{(oc\.env:[A-Za-z_]\w*|\.*[A-Za-z_][\w.]*)\}?")
_HINT = re.compile(rf"{_SECRET}|://", re.IGNORECASE)


#: A shorter value would be found in words that have nothing to do with it.
LEAST = 6
_learned: set[str] = set()
_known: re.Pattern[str] | None = None


def learn(value: Any, key: str = "") -> None:
    """Remember every secret in `value`, so that it is replaced in whatever text this process masks from now on.

    Args:
        value: A config, or a part of one; an override or a URL.
        key: The key that it stands under.
    """
    _remember(_secrets(value, key))


def learn_environment() -> None:
    """Remember the values of this process's environment variables whose names say that they are secrets."""
    _remember(text for name, text in os.environ.items() if is_secret(name, text))


def _remember(texts: Iterable[str]) -> None:
    global _known
    new = {text for text in texts if len(text) >= LEAST and text != MASK} - _learned
    if new:
        _learned.update(new)
        longest_first = sorted(_learned, key=lambda text: (-len(text), text))
        _known = re.compile("|".join(re.escape(text) for text in longest_first))


def _secrets(value: Any, key: str) -> Iterable[str]:
    if isinstance(value, Mapping):
        inherit = bool(key) and "_target_" not in value and is_secret(key, "text")
        for name, item in value.items():
            yield from _secrets(item, f"{name}.{key}" if inherit else str(name))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _secrets(item, key)
    elif isinstance(value, str) and is_secret(key, value):
        if _names_secret(key):
            yield value
    elif isinstance(value, str) and _HINT.search(value):
        for found in _USER_INFO.finditer(value):
            yield found[0][len(found[1]) : -1].partition(":")[2]
        for found in _ASSIGNED.finditer(value):
            bare = found["value"].strip("\"'")
            if is_secret(found["key"], bare) and _names_secret(found["key"]):
                yield bare


def _names_secret(key: str) -> bool:
    """Whether `key` ends in such a word: ``hub_token`` does; ``token_mixer`` names something about tokens."""
    words = [word.lower() for word in _SPLIT.split(key) if word]
    return bool(words) and (words[-1] in _WORDS or (words[-1] in ("key", "id", "value") and len(words) > 1))


class MaskedStream(io.TextIOBase):
    """A text stream that writes to another one what is left of a text without its secrets."""

    def __init__(self, inner: TextIO) -> None:
        """`inner` gets what is written here, line by line or as it comes."""
        self.inner = inner

    def write(self, text: str) -> int:
        """Write `text`, masked."""
        self.inner.write(mask_text(text))
        return len(text)

    def flush(self) -> None:
        """Flush the inner stream."""
        self.inner.flush()

    def fileno(self) -> int:
        """Of the inner stream: what a program in C writes there is not masked."""
        return self.inner.fileno()

    def isatty(self) -> bool:
        """As the inner stream."""
        return self.inner.isatty()


def is_secret(key: str, value: Any = "") -> bool:
    """Whether `value` must not be shown, judged by its `key`."""
    if value is None or isinstance(value, bool) or value == "" or (isinstance(value, str) and _NAMED.fullmatch(value)):
        return False  # ${oc.env:NAME} says where a secret is, not what it is
    if not _KEY.search(_HARMLESS.sub("", key)):
        return False
    if isinstance(value, (int, float)) or (isinstance(value, str) and _NUMBER.match(value)):
        if isinstance(value, str) and value.lower() in ("true", "false", "null", "none"):
            return False
        words = [word.lower() for word in _SPLIT.split(key) if word]
        return bool(words) and (words[-1] in _WORDS or words[-2:] == ["api", "key"])
    return True


def mask_text(value: str) -> str:
    """`value` without URL user-info, the right side of ``password=…`` and its like, and what was learned."""
    if _known is not None:
        value = _known.sub(MASK, value)
    if not _HINT.search(value):  # nearly every value: one scan and done
        return value
    value = _USER_INFO.sub(rf"\1{MASK}@", value)
    return _OPTION.sub(_replace, _ASSIGNED.sub(_replace, value))


def mask_code(value: str) -> str:
    """`mask_text` for source code, where ``token = read()`` is no secret: only literals are replaced."""
    if _known is not None:
        value = _known.sub(MASK, value)
    value = _USER_INFO.sub(rf"\1{MASK}@", value)
    return _ASSIGNED.sub(lambda match: _replace(match) if match["value"][0] in "\"'" else match[0], value)


def mask_file(path: Path) -> str | None:
    """What a file of text would be without its secrets; None where it has none, or is no text."""
    cleaner = mask_code if path.suffix in _CODE else mask_text if path.suffix in _TEXT else None
    if cleaner is None or path.stat().st_size > _TEXT_LIMIT:
        return None
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    clean = cleaner(text)
    return clean if clean != text else None


def _replace(match: re.Match[str]) -> str:
    value = match["value"]
    bare = value[1:-1] if len(value) > 1 and value[0] in "\"'" and value[-1] == value[0] else value
    if not is_secret(match["key"], bare):
        return match[0]
    quote = value[0] if bare is not value else ""
    return f"{match['key']}{match['gap']}{quote}{MASK}{quote}"


def mask(value: Any, key: str = "") -> Any:
    """`value` with every secret replaced, through mappings, lists and tuples.

    Args:
        value: Anything; what is no text, mapping or sequence comes back as it is.
        key: The key that it stands under.
    """
    if isinstance(value, Mapping):
        if key and "_target_" not in value and is_secret(key, "text"):  # credentials: {user: …, …}
            return {name: mask(item, f"{name}.{key}") for name, item in value.items()}
        return {name: mask(item, str(name)) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(mask(item, key) for item in value) if type(value) in (list, tuple) else value
    if is_secret(key, value):
        return MASK
    return mask_text(value) if isinstance(value, str) else value
