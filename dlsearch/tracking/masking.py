"""Secrets are replaced before they reach any file, database or screen.

A value is a secret when its key says so (pass, secret, token, api key, credential) or when it stands in a URL as
user-info. Numbers are kept unless the key *is* such a word: ``n_tokens: 512`` is a hyperparameter, ``token: 512`` not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MASK = "***"

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
_HINT = re.compile(rf"{_SECRET}|://", re.IGNORECASE)


def is_secret(key: str, value: Any = "") -> bool:
    """Whether `value` must not be shown, judged by its `key`."""
    if value is None or isinstance(value, bool) or value == "" or not _KEY.search(_HARMLESS.sub("", key)):
        return False
    if isinstance(value, (int, float)) or (isinstance(value, str) and _NUMBER.match(value)):
        if isinstance(value, str) and value.lower() in ("true", "false", "null", "none"):
            return False
        words = [word.lower() for word in _SPLIT.split(key) if word]
        return bool(words) and (words[-1] in _WORDS or words[-2:] == ["api", "key"])
    return True


def mask_text(value: str) -> str:
    """`value` without URL user-info and without the right side of ``password=…`` and its like."""
    if not _HINT.search(value):  # nearly every value: one scan and done
        return value
    value = _USER_INFO.sub(rf"\1{MASK}@", value)
    return _OPTION.sub(_replace, _ASSIGNED.sub(_replace, value))


def mask_code(value: str) -> str:
    """`mask_text` for source code, where ``token = read()`` is no secret: only literals are replaced."""
    value = _USER_INFO.sub(rf"\1{MASK}@", value)
    return _ASSIGNED.sub(lambda match: _replace(match) if match["value"][0] in "\"'" else match[0], value)


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
