"""The secrets that are known, and texts and configs without them. Imports nothing heavy.

What :meth:`Secrets.learn` has seen, and what a config has read from the environment, is a secret
wherever it turns up again: in an exception's text or in a line of a log; plain, escaped for JSON,
Python, HTML, a shell or a URL, in base64 or in hex. What is a secret by its key or its shape is
replaced as well (:mod:`dlsearch.core.secret_shapes`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dlsearch.core import environment
from dlsearch.core.environment import LEAST
from dlsearch.core.secret_shapes import (
    MASK,
    find_secrets,
    is_secret,
    key_below,
    parse_override,
    replace_assigned,
    replace_named,
    replace_shapes,
)

#: Files of text, of markup, and of source code; larger ones are left as they are.
_TEXT = {
    ".txt",
    ".log",
    ".yaml",
    ".yml",
    ".json",
    ".jsonl",
    ".toml",
    ".cfg",
    ".ini",
    ".env",
    ".sh",
    ".conf",
}
_MARKUP = {".md", ".rst", ".html", ".svg", ".xml", ".csv", ".tsv"}
_CODE = {".py", ".patch", ".diff", ".ipynb"}
_MAX_FILE_BYTES = 32 << 20
#: A longer secret is searched for as it is, and line by line, in no other form.
_MAX_FORM_CHARACTERS = 4096
_MIN_LINE_CHARACTERS = 12
#: With more forms than this, one pattern of all finds a secret in a short text faster than a search
#: for each.
_MANY_FORMS = 64
_SHORT_CHARACTERS = 200


class Secrets:
    """The secrets that a session knows.

    What knows none replaces only what is one by its key or its shape.
    """

    def __init__(self) -> None:
        """Know none."""
        self._learned: set[str] = set()
        self._forms: list[str] = []
        self._pattern: re.Pattern[str] | None = None

    # -- learning
    def learn(self, value: Any, key: str = "") -> None:
        """Remember every secret in `value`; from now on it is masked in every text.

        Args:
            value: A config, or a part of one; an override or a URL.
            key: The key that it stands under.
        """
        for text in environment.note_named(_find_environment_texts(value)):
            self.learn_read(text)
        self._remember(find_secrets(value, key))

    def learn_environment(self) -> None:
        """Remember what is secret in this process's environment by its name or shape."""
        for name, text in os.environ.items():
            self._remember(find_secrets(text, name))

    def learn_read(self, text: str) -> None:
        """Remember a value of the environment that a config has read.

        Of an address, also what in it is a secret.
        """
        self._remember([*find_secrets(text, ""), text])

    def _remember(self, texts: Iterable[str]) -> None:
        new = {text for text in texts if len(text) >= LEAST and MASK not in text} - self._learned
        for text in list(new):
            new.update(_split_long_lines(text))
        new -= self._learned
        if not new:
            return
        self._learned.update(new)
        found = {form for text in self._learned for form in _list_forms(text)}
        long_enough = [form for form in found if len(form) >= LEAST]
        self._forms = sorted(long_enough, key=lambda form: (-len(form), form))
        self._pattern = re.compile("|".join(map(re.escape, self._forms)))

    # -- asking
    def longest_unfinished(self, text: str) -> int:
        """How many characters at the end of `text` may begin a secret that is known."""
        longest = 0
        for form in self._forms:
            for size in range(min(len(form) - 1, len(text)), longest, -1):
                if text.endswith(form[:size]):
                    longest = size
                    break
        return longest

    # -- masking
    def mask_known(self, text: str) -> str:
        """`text` without what was learned."""
        if self._pattern is None or len(text) < LEAST:
            return text
        if len(self._forms) > _MANY_FORMS and len(text) < _SHORT_CHARACTERS:
            return self._pattern.sub(MASK, text)
        for form in self._forms:  # most texts contain none: faster than one search for all
            if form in text:
                return self._pattern.sub(MASK, text)
        return text

    def mask_shapes(self, text: str) -> str:
        """`text` without what was learned, and without what its shape gives away."""
        return replace_shapes(self.mask_known(text))

    def mask_text(self, text: str) -> str:
        """`text` without its secrets: what is known, what has a shape, what follows a name."""
        return replace_named(self.mask_shapes(text))

    def mask_code(self, text: str) -> str:
        """Source code without its secrets.

        ``token = read()`` holds none, so only literals are replaced.
        """
        return replace_assigned(self.mask_shapes(text), literals=True)

    def mask_file(self, path: Path) -> str | None:
        """The content of a file of text without its secrets.

        None where it has none, or is no text.
        """
        suffix = path.suffix.lower()
        if suffix not in _TEXT | _MARKUP | _CODE or path.stat().st_size > _MAX_FILE_BYTES:
            return None
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
        if suffix in _CODE:
            clean = self.mask_code(text)
        elif suffix in _MARKUP:
            clean = self.mask_shapes(text)
        else:
            clean = self.mask_text(text)
        return clean if clean != text else None

    def mask_known_in(self, value: Any) -> Any:
        """`value` without what was learned, in all texts of a plain JSON tree; no key is judged."""
        if isinstance(value, str):
            return self.mask_known(value)
        if isinstance(value, Mapping):
            return {
                self.mask_known_in(name): self.mask_known_in(item) for name, item in value.items()
            }
        if isinstance(value, list):
            return [self.mask_known_in(item) for item in value]
        return value

    def mask(self, value: Any, key: str = "") -> Any:
        """`value` with every secret replaced, through mappings, lists and tuples.

        Args:
            value: Anything; what is no text, mapping or sequence comes back as it is.
            key: The key that it stands under.
        """
        if isinstance(value, Mapping):
            return {
                name: self.mask(item, key_below(key, name, value)) for name, item in value.items()
            }
        if isinstance(value, (list, tuple)):
            if type(value) not in (list, tuple):
                return value
            return type(value)(self._mask_word(item, key) for item in value)
        if is_secret(key, value):
            return MASK
        return self.mask_text(value) if isinstance(value, str) else value

    def _mask_word(self, word: Any, key: str) -> Any:
        """An item of a list, which may be a word of a command line."""
        override = parse_override(word) if isinstance(word, str) else None
        return self.mask(word, key) if override is None else f"{override[0]}={MASK}"


def _find_environment_texts(value: Any) -> Iterator[str]:
    """The texts in a config that read the environment."""
    if isinstance(value, str):
        if "oc.env" in value:
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _find_environment_texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _find_environment_texts(item)


def _split_long_lines(text: str) -> Iterator[str]:
    """The long lines of a secret that has several.

    A private key, for example, is often written line by line.
    """
    lines = text.replace("\\n", "\n").splitlines()
    if len(lines) < 2:
        return
    for line in lines:
        if len(line.strip()) >= _MIN_LINE_CHARACTERS and "-----" not in line:
            yield line.strip()


def _list_forms(secret: str) -> Iterator[str]:
    """A secret in every form in which it may turn up."""
    yield secret
    if len(secret) > _MAX_FORM_CHARACTERS:
        return
    raw = secret.encode("utf-8", "surrogatepass")
    if not secret.isalnum():
        yield from _list_escaped(secret, raw)
        yield from _list_quoted(raw)
    yield from _list_encoded(raw)


def _list_escaped(secret: str, raw: bytes) -> Iterator[str]:
    """Escaped for JSON, Python, a shell and HTML."""
    import html
    import json
    import shlex

    escaped = json.dumps(secret)[1:-1]
    yield escaped
    yield json.dumps(escaped)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield escaped.replace("/", "\\/")
    yield repr(secret)[1:-1]
    yield repr(raw)[2:-1]
    yield shlex.quote(secret).strip("'")
    yield html.escape(secret)
    yield html.escape(secret).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")


def _list_quoted(raw: bytes) -> Iterator[str]:
    """Quoted for a URL, and quoted twice."""
    from urllib.parse import quote, quote_plus

    quoted = (
        quote(raw),
        quote(raw, safe=""),
        quote_plus(raw),
        quote(raw, safe="/:@!$&'()*+,;=~"),
    )
    for each in quoted:
        yield each
        yield re.sub("%..", lambda match: match[0].lower(), each)
        yield quote(each, safe="")


def _list_encoded(raw: bytes) -> Iterator[str]:
    """In hex, base32 and base64.

    In base64 also within a longer text, at each of its three offsets.
    """
    import base64
    from urllib.parse import quote

    yield raw.hex()
    yield raw.hex().upper()
    yield base64.b32encode(raw).decode().rstrip("=")
    for bytes_before in range(3):
        begin = -(-bytes_before * 8 // 6)
        end = (bytes_before + len(raw)) * 8 // 6  # digits that are wholly the secret's own
        digits = base64.b64encode(b"\0" * bytes_before + raw).decode()[begin:end]
        yield digits
        if not digits.isalnum():
            yield digits.replace("+", "-").replace("/", "_")
            yield quote(digits, safe="")
