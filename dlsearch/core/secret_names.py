"""Which names name secrets: of config keys, environment variables and options.

A name is taken apart into words, and the words at its end decide. So ``hub_token``, ``OPENAI_KEY``
and ``dbPassword`` name secrets; ``tokenizer``, ``max_tokens``, ``key_size`` and ``pad_token`` do
not.
"""

from __future__ import annotations

import re
from functools import lru_cache

_SPLIT = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_CONSTANT = re.compile(r"[A-Z][A-Z0-9_]*")

#: A number under one of these is a secret too.
_CODES = frozenset(
    {
        "pass",
        "passcode",
        "passphrase",
        "passwd",
        "password",
        "passwords",
        "pwd",
        "secret",
        "secrets",
        "token",
    }
    | {"apikey", "credential", "credentials"}
)
_WORDS = _CODES | {
    *(
        "apikeys",
        "auth",
        "authorization",
        "bearer",
        "cookie",
        "cookies",
        "creds",
        "dsn",
        "jwt",
        "mnemonic",
    ),
    *("pat", "psk", "pw", "sessionid", "webhook", "webhooks"),
}
_PAIRS = frozenset(
    {
        ("connection", "string"),
        ("conn", "str"),
        ("connect", "string"),
        ("id", "rsa"),
        ("recovery", "code"),
    }
    | {("hook", "url"), ("pass", "phrase"), ("pass", "word"), ("seed", "phrase")}
)
#: Whose key is a secret. A name in capitals is an environment variable: there every ``…_KEY`` is
#: one.
_KEY_OF = frozenset(
    [
        "access",
        "account",
        "api",
        "app",
        "auth",
        "client",
        "deploy",
        "encryption",
        "fernet",
        "hmac",
        "license",
        "master",
        "private",
        "secret",
        "service",
        "session",
        "shared",
        "signing",
        "ssh",
        "storage",
        "subscription",
        "anthropic",
        "aws",
        "azure",
        "cloudflare",
        "cohere",
        "comet",
        "databricks",
        "datadog",
        "discord",
        "gcp",
        "gemini",
        "github",
        "gitlab",
        "google",
        "groq",
        "heroku",
        "hf",
        "huggingface",
        "kaggle",
        "mistral",
        "neptune",
        "openai",
        "openrouter",
        "pinecone",
        "replicate",
        "sendgrid",
        "sentry",
        "slack",
        "stripe",
        "telegram",
        "twilio",
        "wandb",
    ]
)
#: Whose token is a secret, beside those of `_KEY_OF`.
_OWNERS = frozenset(
    [
        "admin",
        "bot",
        "ci",
        "csrf",
        "device",
        "git",
        "hub",
        "id",
        "job",
        "login",
        "my",
        "npm",
        "oauth",
        "oauth2",
        "push",
        "pypi",
        "registry",
        "root",
        "security",
        "server",
        "site",
        "sso",
        "upload",
        "user",
        "xsrf",
    ]
)
_PLAIN_WORDS = re.compile(r"[a-z]{1,12}(?:[_-][a-z]{1,12}){0,2}")
_TOKENS_OF = frozenset(["access", "api", "auth", "bearer", "refresh", "session"])
#: In capitals, too: no secret.
_OPEN_KEYS = frozenset(
    [
        "cache",
        "dict",
        "foreign",
        "group",
        "hash",
        "index",
        "join",
        "map",
        "partition",
        "primary",
        "public",
        "query",
        "row",
        "sort",
        "target",
    ]
)
#: Words before ``token`` and ``pass`` that make it a piece of text, and a way through.
_PIECES = frozenset(
    [
        "begin",
        "blank",
        "bos",
        "class",
        "cls",
        "distill",
        "distillation",
        "end",
        "eos",
        "fill",
        "first",
        "image",
        "last",
        "mask",
        "max",
        "min",
        "n",
        "next",
        "num",
        "oov",
        "pad",
        "per",
        "prefix",
        "prev",
        "previous",
        "query",
        "reg",
        "register",
        "sep",
        "special",
        "start",
        "stop",
        "sub",
        "suffix",
        "text",
        "unk",
        "unknown",
        "video",
        "vocab",
    ]
)
_WAYS = frozenset(
    [
        "all",
        "backward",
        "band",
        "by",
        "com",
        "first",
        "forward",
        "full",
        "high",
        "low",
        "max",
        "min",
        "multi",
        "n",
        "num",
        "one",
        "over",
        "per",
        "second",
        "single",
        "third",
        "two",
        "under",
    ]
)
#: Words behind such a name that leave it one.
_TAILS = frozenset(
    [
        "admin",
        "b64",
        "backup",
        "base64",
        "current",
        "default",
        "dev",
        "development",
        "enc",
        "encrypted",
        "hash",
        "header",
        "headers",
        "hex",
        "main",
        "new",
        "old",
        "only",
        "plain",
        "previous",
        "primary",
        "prod",
        "production",
        "raw",
        "read",
        "readonly",
        "readwrite",
        "ro",
        "rw",
        "secondary",
        "stage",
        "staging",
        "str",
        "string",
        "test",
        "text",
        "value",
        "write",
    ]
)
#: All that a mapping of such a name holds is secret.
_HOLDERS = frozenset(
    [
        "auth",
        "authorization",
        "cookies",
        "credential",
        "credentials",
        "creds",
        "password",
        "passwords",
        "secret",
        "secrets",
    ]
)
#: A name that has one of these words anywhere is a secret's, unless its last word is one of
#: `_ABOUT`.
_ANYWHERE = frozenset(
    {"credential", "credentials", "passphrase", "passwd", "password", "passwords"}
)
_ABOUT = frozenset(
    [
        "cmd",
        "column",
        "command",
        "count",
        "dim",
        "dir",
        "enabled",
        "endpoint",
        "env",
        "expires",
        "expiry",
        "field",
        "file",
        "files",
        "folder",
        "host",
        "kind",
        "len",
        "length",
        "lifetime",
        "manager",
        "max",
        "min",
        "name",
        "names",
        "num",
        "number",
        "path",
        "paths",
        "policy",
        "prompt",
        "provider",
        "required",
        "rotation",
        "size",
        "strength",
        "ttl",
        "type",
        "uri",
        "url",
        "var",
        "variable",
    ]
)
#: Words that are written as one.
_COMPOUND = (
    r"[a-z0-9]*(?:password|passwd|passphrase|apikey|secretkey|accesskey|privatekey|credentials)"
    r"|(?:access|api|app|auth|bearer|bot|client|csrf|db|ftp|gh|github|gitlab|hf|http|hub|mail|my"
    r"|mysql|pg|proxy"
    r"|refresh|root|session|smtp|sql|ssh|user|xsrf)(?:pass|pwd|secret|token)"
)


@lru_cache(maxsize=4096)
def names_secret(key: str, *, number: bool = False) -> bool:
    """Whether `key` names a secret.

    Args:
        key: Of a config (its last word decides), an environment variable or an option.
        number: Whether what stands there is a number: ``auth: 3`` is no secret, ``token: 123456``
            is.
    """
    if key in ("PWD", "OLDPWD"):  # the working folder
        return False
    words = [word for part in _SPLIT.split(key) if (word := part.lower().rstrip("0123456789"))]
    if not words:
        return False
    if not number and _ANYWHERE.intersection(words) and words[-1] not in _ABOUT:
        return True
    while len(words) > 1 and _is_tail(words):
        words.pop()
    last = words[-1]
    before = words[-2] if len(words) > 1 else ""
    if re.fullmatch(_COMPOUND, last):
        return True
    if number:
        return (last in _CODES and not _is_harmless(last, before)) or (before, last) == (
            "api",
            "key",
        )
    if last == "key":
        return before in _KEY_OF or (
            bool(before) and _CONSTANT.fullmatch(key) is not None and before not in _OPEN_KEYS
        )
    if last == "tokens":
        return before in _TOKENS_OF
    return (before, last) in _PAIRS or (last in _WORDS and not _is_harmless(last, before))


def is_choice_of_code(key: str, value: str) -> bool:
    """Whether a value under ``…_token`` is a word that code chooses by, as ``pool_token: average``.

    Tokens that give access are drawn by machines and are no words. A key that says of which
    service it is, or of whom, is taken at its word all the same.
    """
    words = [word.lower() for word in _SPLIT.split(key) if word]
    if len(words) < 2 or words[-1] != "token" or _CONSTANT.fullmatch(key):
        return False
    if words[-2] in _TOKENS_OF or words[-2] in _KEY_OF or words[-2] in _OWNERS:
        return False
    return _PLAIN_WORDS.fullmatch(value) is not None


def holds_secrets(key: str) -> bool:
    """Whether `key`, which names a secret, is one of a whole mapping's.

    ``credentials`` is, ``token`` is not.
    """
    return _SPLIT.split(key)[-1].lower() in _HOLDERS


def _is_tail(words: list[str]) -> bool:
    last = words[-1]
    before = words[-2]
    if (before, last) in _PAIRS:
        return False
    if last in ("url", "uri"):
        return before in ("webhook", "webhooks")
    return last in _TAILS or (last == "id" and before == "key")


def _is_harmless(last: str, before: str) -> bool:
    return (last == "token" and before in _PIECES) or (last == "pass" and before in _WAYS)
