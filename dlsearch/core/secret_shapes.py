"""What a secret looks like: under a key that names it, or by its own shape.

Nothing here knows a secret.

The shapes are the tokens of well-known services, JSON web tokens, private keys, the user-info of a
URL, the addresses of webhooks, headers and signed queries. In a text a secret also stands behind
its name, as in ``PGPASSWORD=…``. Which names those are is in :mod:`dlsearch.core.secret_names`;
what a process has learned, in :mod:`dlsearch.core.secrets`. Imports nothing heavy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from dlsearch.core.environment import LEAST
from dlsearch.core.secret_names import holds_secrets, is_choice_of_code, names_secret

MASK = "***"
#: A text that is longer is searched for the beginning of a token by one pattern: faster there than
#: one search for each.
_LONG = 2000

# -- in texts, by key
#: Every name of a secret contains one of these, in small letters. Nearly every text has none, and
#: needs no further search.
_STEMS = (
    "pass",
    "pwd",
    "secret",
    "token",
    "key",
    "cred",
    "auth",
    "cookie",
    "webhook",
    "dsn",
    "pat",
    "bearer",
    "jwt",
    "psk",
    "pw",
    "conn",
    "session",
    "mnemonic",
    "phrase",
    "hook",
    "rsa",
    "recovery",
)
_NAME = re.compile(r"(?<![\w.\-])(?P<key>[\w.\-]{1,128})\\*[\"']?[ \t]*(?:[=:]|%3[AaDd])[ \t]*")
_VALUE = re.compile(
    r"(?P<block>[|>][+\-]?\d?[ \t]*(?:\n[ \t]+[^\n]*)+)"  # a block of YAML
    r"|(?P<open>\\*[\"'])(?P<quoted>(?:(?!(?P=open))[^\\\n]|\\.)*?)(?P=open)"
    r"|\\*[\"'](?P<half>[^\"'\\\s]+)"
    r"|(?P<bare>[^\s&,;\"'\]}]+)"
)
_OPTION = re.compile(r"(?<![\w.\-])(?P<key>--[\w\-]{1,128})(?P<gap>[ \t]+)(?P<value>[^\s\-]\S*)")
_HEADER = re.compile(
    r"(?P<key>\b(?:[Pp]roxy-)?[Aa]uthorization|\b(?:[Ss]et-)?[Cc]ookie)"
    r"(?P<gap>\\*[\"']?[ \t]*[:=][ \t]*\\*[\"']?)"
    r"(?P<value>[^\s\"'\\][^\n\"'\\]*)"
)
_BEARER = re.compile(
    r"\b([Bb]earer|[Bb]asic)([ \t]+|%20|\+)(?=[^\s\"']*\d|[^\s\"']{20})[\w.~+/=%\-]{8,}"
)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$|(true|false|null|none)$", re.IGNORECASE)
#: An interpolation says where a secret is, not what it is. In a text its brace and the word before
#: it may be cut off.
_NAMED = re.compile(
    r"(?:(?:bearer|basic|token|apikey)[ \t]*)?"
    r"\$\{(oc\.env:[A-Za-z_]\w*(,\s*null)?|\.*[A-Za-z_][\w.]*)\}?",
    re.IGNORECASE,
)

# -- in texts, by shape
_USER_INFO = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]{0,30}:\\?/\\?/)([^/\s\"'<>]*)@")
_INTERPOLATIONS = re.compile(r"\$\{[^{}]*\}|[:\s]")
#: How the tokens of services begin. A text may end in the middle of one.
BEGINNINGS = (
    "sk-",
    "sk_live_",
    "sk_test_",
    "rk_live_",
    "rk_test_",
    "whsec_",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "glpat-",
    "github_pat_",
    "gldt-",
    "glrt-",
    "glptt-",
    "glcbt-",
    "glsoat-",
    "xoxa-",
    "xoxb-",
    "xoxe-",
    "xoxo-",
    "xoxp-",
    "xoxr-",
    "xoxs-",
    "xapp-",
    "AKIA",
    "ASIA",
    "AIza",
    "ya29.",
    "hf_",
    "npm_",
    "pypi-",
    "dop_v1_",
    "shpat_",
    "SG.",
    "dapi",
    "gsk_",
    "r8_",
    "eyJ",
    "lin_api_",
    "nvapi-",
    "tgp_v1_",
    "pplx-",
    "xai-",
    "hvs.",
    "figd_",
    "dckr_pat_",
)
#: Every token has so many characters in a row.
_RUN = re.compile(r"[\w\-]{16}", re.ASCII)
_WEBHOOKS = (
    "hooks.slack.com/",
    "/api/webhooks/",
    "webhook.office.com/",
    "api.telegram.org/bot",
    "hooks.zapier.com/",
)
_KEY_BLOCK = "PRIVATE KEY"
PEM_BEGINS = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
PEM_ENDS = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")


@cache
def _token_pattern() -> re.Pattern[str]:
    """The tokens of services; compiled when the first text could hold one."""
    return re.compile(
        r"(?<![A-Za-z0-9])(?:"
        r"sk-(?=[\w\-]*\d)[\w\-]{16,}|[sr]k_(?:live|test)_\w{16,}|whsec_[\w+/=]{16,}"
        r"|gh[opusr]_[A-Za-z0-9]{20,}"
        r"|github_pat_\w{20,}|gl(?:pat|dt|rt|ptt|cbt|soat)-[\w\-]{16,}"
        r"|xox[abeoprs]-[A-Za-z0-9\-]{12,}"
        r"|xapp-[A-Za-z0-9\-]{12,}|A[KS]IA[0-9A-Z]{16}|AIza[\w\-]{30,}|ya29\.[\w\-]{20,}"
        r"|hf_[A-Za-z0-9]{20,}"
        r"|npm_[A-Za-z0-9]{30,}|pypi-[\w\-]{40,}|dop_v1_[0-9a-f]{40,}|shpat_[0-9a-f]{30,}"
        r"|dckr_pat_[\w\-]{20,}"
        r"|SG\.[\w\-]{16,}\.[\w\-]{16,}|dapi[0-9a-f]{32}|gsk_[A-Za-z0-9]{20,}|r8_[A-Za-z0-9]{30,}"
        r"|lin_api_[A-Za-z0-9]{20,}|nvapi-[\w\-]{20,}|tgp_v1_[\w\-]{20,}|pplx-[A-Za-z0-9]{20,}"
        r"|xai-[A-Za-z0-9]{20,}"
        r"|hvs\.[\w\-]{20,}|figd_[\w\-]{20,}|eyJ[\w\-]{13,}\.eyJ[\w\-]{4,}(?:\.[\w\-]*){0,4})"
    )


@cache
def _webhook_pattern() -> re.Pattern[str]:
    """The addresses of webhooks, of which the part behind the group is the secret."""
    return re.compile(
        r"(hooks\.slack\.com/(?:services|workflows|triggers)/|discord(?:app)?\.com/api/webhooks/"
        r"|/api/webhooks/"
        r"|webhook\.office\.com/|hooks\.zapier\.com/hooks/|api\.telegram\.org/bot)[^\s\"'<>*]+"
    )


@cache
def _query_pattern() -> re.Pattern[str]:
    """The part of an address that signs it, or that opens what it names.

    Other names of secrets are found by key.
    """
    names = (
        r"sig|signature|key|auth|code|jwt|hmac|sas"
        r"|x-(?:amz|goog|ms)-(?:signature|credential|security-token)"
    )
    return re.compile(rf"([?&#](?:{names})=)[^&#\s\"'<>*]+", re.IGNORECASE)


@cache
def _key_block_pattern() -> re.Pattern[str]:
    """Private keys as text, also those whose end was cut off."""
    begins = PEM_BEGINS.pattern
    ends = PEM_ENDS.pattern
    return re.compile(rf"{begins}(?:[\s\S]{{0,32768}}?{ends}|[A-Za-z0-9+/=\\\s:,\-]*)")


# -- judging by a key
def is_secret(key: str, value: Any = "") -> bool:
    """Whether `value` must not be shown, judged by its `key`."""
    if not key or value is None or isinstance(value, bool) or value == "":
        return False
    if isinstance(value, str):
        if value.lower() in ("true", "false", "null", "none") or _NAMED.fullmatch(value):
            return False
        if is_choice_of_code(key, value):
            return False
        return names_secret(key, number=_NUMBER.match(value) is not None)
    return names_secret(key, number=isinstance(value, (int, float)))


def key_below(key: str, name: Any, node: Mapping[Any, Any]) -> str:
    """The key by which an item of a mapping is judged.

    All of ``credentials: {user: …}`` is secret, and so is ``value`` in ``token: {value: …}``.

    Args:
        key: The mapping's own key.
        name: The item's name in it.
        node: The mapping.
    """
    if not key or "_target_" in node or not is_secret(key, "text"):
        return str(name)
    return f"{name}.{key}" if holds_secrets(key) else f"{key}.{name}"


def parse_override(word: str) -> tuple[str, str] | None:
    """Key and value of ``key=value``, a word of a command line; None where the key names no secret.

    The value is the rest of the word: a blank ends nothing there.
    """
    key, equals, value = word.partition("=")
    if not equals or not key or any(character.isspace() for character in key):
        return None
    is_quoted = len(value) > 1 and value[0] in "\"'" and value[-1] == value[0]
    bare = value[1:-1] if is_quoted else value
    return (key, bare) if is_secret(key, bare) else None


# -- finding
def find_secrets(value: Any, key: str) -> Iterator[str]:
    """The secrets in a config, an override, a URL or any other text.

    Args:
        value: A mapping, a list or a text; nothing else holds a secret.
        key: The key that it stands under.
    """
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from find_secrets(item, key_below(key, name, value))
    elif isinstance(value, (list, tuple)):
        yield from _find_in_words(value, key)
    elif isinstance(value, str):
        if is_secret(key, value):
            yield value
        yield from _find_in_text(value)


def _find_in_words(words: list[Any] | tuple[Any, ...], key: str) -> Iterator[str]:
    """The secrets in a list.

    It may be a command line: there ``--token`` names the word that follows.
    """
    before: Any = None
    for word in words:
        if isinstance(word, str) and (override := parse_override(word)) is not None:
            yield override[1]
        is_option = isinstance(before, str) and before.startswith("--") and "=" not in before
        is_its_value = is_option and not str(word).startswith("-")
        yield from find_secrets(word, str(before) if is_its_value else key)
        before = word


def _find_in_text(text: str) -> Iterator[str]:
    if _may_hold_token(text):
        yield from (found[0] for found in _token_pattern().finditer(text))
    if _KEY_BLOCK in text:
        yield from (found[0] for found in _key_block_pattern().finditer(text))
    if "://" in text:
        yield from _find_in_addresses(text)
    if any(stem in text.lower() for stem in _STEMS):
        yield from (value for _, value in _find_assigned(text))


def _find_in_addresses(text: str) -> Iterator[str]:
    """The password in the user-info of each URL.

    The user where there is no password, and it looks like a token.
    """
    from urllib.parse import unquote

    for user_info in _USER_INFO.finditer(text):
        if not _INTERPOLATIONS.sub("", user_info[2]):
            continue
        name, _, password = user_info[2].partition(":")
        looks_like_token = len(name) >= 2 * LEAST and not name.isalpha()
        secret = password or (name if looks_like_token else "")
        yield from (secret, unquote(secret))


def _find_assigned(text: str, *, literals: bool = False) -> Iterator[tuple[tuple[int, int], str]]:
    """The secrets that stand behind their names, as in ``password=…``: position and value.

    Args:
        text: Any text.
        literals: Whether only values in quotes count.
    """
    at = 0
    while (name := _NAME.search(text, at)) is not None:
        at = name.end()
        if not names_secret(name["key"]):
            continue
        found = _VALUE.match(text, at)
        if found is None or (literals and found["open"] is None):
            continue
        groups = ("quoted", "block", "half", "bare")
        group = next(each for each in groups if found[each] is not None)
        if is_secret(name["key"], found[group]):
            yield found.span(group), found[group]
            at = found.end()


def _may_hold_token(text: str) -> bool:
    """Whether a service's token may be in a text."""
    if len(text) > _LONG:
        return _beginning_pattern().search(text) is not None
    return _RUN.search(text) is not None and any(beginning in text for beginning in BEGINNINGS)


@cache
def _beginning_pattern() -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, BEGINNINGS)))


# -- replacing
def replace_shapes(text: str) -> str:
    """`text` without what is a secret by its shape."""
    if _may_hold_token(text):
        text = _token_pattern().sub(MASK, text)
    if _KEY_BLOCK in text:
        text = _key_block_pattern().sub(MASK, text)
    if "=" in text and ("?" in text or "&" in text or "#" in text):
        text = _query_pattern().sub(rf"\1{MASK}", text)
    if "/" not in text:
        return text
    if any(webhook in text for webhook in _WEBHOOKS):
        text = _webhook_pattern().sub(rf"\1{MASK}", text)
    return _USER_INFO.sub(_replace_user_info, text) if "@" in text else text


def replace_named(text: str) -> str:
    """`text` without what follows the name of a secret, be it assigned, a header or an option."""
    if "=" not in text and ":" not in text and " " not in text and "%3" not in text:
        return text
    lowered = text.lower()
    for stem in _STEMS:
        if stem in lowered:
            break
    else:  # nearly every text
        return text
    if "uthorization" in lowered or "cookie" in lowered:
        text = _HEADER.sub(_replace_header, text)
    if "bearer" in lowered or "basic" in lowered:
        text = _BEARER.sub(rf"\1\2{MASK}", text)
    if "--" in text:
        text = _OPTION.sub(_replace_option, text)
    return replace_assigned(text)


def replace_assigned(text: str, *, literals: bool = False) -> str:
    """`text` without the right sides of ``password=…`` and its like.

    Args:
        text: Any text.
        literals: Whether only values in quotes count, as in source code.
    """
    parts: list[str] = []
    at = 0
    for (begin, end), _ in _find_assigned(text, literals=literals):
        parts += [text[at:begin], MASK]
        at = end
    return "".join([*parts, text[at:]]) if parts else text


def _replace_user_info(match: re.Match[str]) -> str:
    is_interpolation = "${" in match[2] and not _INTERPOLATIONS.sub("", match[2])
    return match[0] if is_interpolation else f"{match[1]}{MASK}@"


def _replace_option(match: re.Match[str]) -> str:
    if not is_secret(match["key"], match["value"]):
        return match[0]
    return f"{match['key']}{match['gap']}{MASK}"


def _replace_header(match: re.Match[str]) -> str:
    if _NAMED.fullmatch(match["value"]):
        return match[0]
    return f"{match['key']}{match['gap']}{MASK}"
