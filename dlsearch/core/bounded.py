"""Text that somebody else may have written, read within bounds: YAML and JSON.

A few hundred bytes of YAML can stand for gigabytes, by aliases of aliases. A megabyte of brackets
overflows the stack of a program that walks through it. One number of a million digits takes
minutes. All of dlsearch's own reading passes here. Hydra reads config groups itself:
:mod:`dlsearch.config.guard` checks those first, by :func:`check_yaml`.
"""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsearch.core.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

#: A YAML may stand for so many values, have so many bytes, and be so deep; a word without quotes
#: may be so long.
MAX_NODES = 20_000
MAX_BYTES = 4_000_000
MAX_DEPTH = 100
MAX_WORD = 4_000
#: A JSON may have so many characters, lists and mappings, and be so deep. In memory it is up to 12
#: times as large.
MAX_JSON = 64_000_000
MAX_JSON_NODES = 2_000_000
MAX_JSON_DEPTH = 100
#: What the texts in its tables are called.
IN_DATABASE = "the study's database"


def check_yaml(text: str, where: str, max_nodes: int = MAX_NODES) -> None:
    """Refuse a YAML that stands for too much; reads it without expanding an alias.

    What is no YAML passes: its loader says what is wrong with it.

    Args:
        text: The YAML.
        where: What to call it.
        max_nodes: How many values it may stand for.

    Raises:
        ConfigError: It is too large, too deep, contains itself, or has a word that is too long.
    """
    import yaml

    counter = _YamlCounter(where, max_nodes)
    if len(text) > MAX_BYTES:
        raise counter.too_large()
    # ten times as fast, where PyYAML was built with libyaml
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        for event in yaml.parse(text, Loader=loader):
            counter.count(event)
    except yaml.YAMLError:
        return


class _YamlCounter:
    """Counts the values that a YAML stands for, event by event, an alias as all that it repeats.

    Args:
        where: What to call the YAML.
        max_nodes: How many values it may stand for.
    """

    def __init__(self, where: str, max_nodes: int) -> None:
        self._where = where
        self._max_nodes = max_nodes
        self._sizes_of_anchors: dict[str, int] = {}
        #: Lists and mappings that have not ended: the anchor of each, and the size so far.
        self._open: list[tuple[str | None, int]] = []

    def count(self, event: Any) -> None:
        """Take the next event of PyYAML's parser.

        Raises:
            ConfigError: The YAML stands for too much.
        """
        import yaml

        if isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            self._begin_collection(event.anchor)
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            anchor, size = self._open.pop()
            self._add_value(anchor, size)
        elif isinstance(event, yaml.AliasEvent):
            self._add_value(None, self._size_of_alias(event.anchor))
        elif isinstance(event, yaml.ScalarEvent):
            self._check_word(event)
            self._add_value(event.anchor, 1)

    def too_large(self) -> ConfigError:
        """The error of a YAML that stands for more than it may."""
        said = f"stands for more than {self._max_nodes:,} values"
        return ConfigError(self._where, said, "a config has no such size")

    def _begin_collection(self, anchor: str | None) -> None:
        self._open.append((anchor, 1))
        if len(self._open) > MAX_DEPTH:
            raise ConfigError(
                self._where,
                f"is deeper than {MAX_DEPTH} levels",
                "a config has no such depth",
            )

    def _size_of_alias(self, name: str | None) -> int:
        if any(anchor == name for anchor, _ in self._open):
            raise ConfigError(self._where, f"*{name} contains itself")
        return self._sizes_of_anchors.get(name or "", 1)

    def _check_word(self, event: Any) -> None:
        has_no_quotes = event.implicit[0] or event.tag is not None
        if len(event.value) > MAX_WORD and has_no_quotes:
            raise ConfigError(
                self._where,
                f"holds a word of more than {MAX_WORD:,} characters",
                "quote it",
            )

    def _add_value(self, anchor: str | None, size: int) -> None:
        """Add a value that has ended to the collection that holds it."""
        if anchor is not None:
            self._sizes_of_anchors[anchor] = size
        if self._open:
            outer, size_so_far = self._open[-1]
            size += size_so_far
            self._open[-1] = (outer, size)
        if size > self._max_nodes:
            raise self.too_large()


def read_text(path: Path, max_bytes: int = MAX_BYTES) -> str:
    """The text of a file that is no larger than `max_bytes`.

    Raises:
        ConfigError: It is larger, or is no text.
        OSError: It cannot be read.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):  # opening a pipe waits for ever
        raise ConfigError(str(path), "is no file")
    if found.st_size > max_bytes:
        raise ConfigError(str(path), f"has more than {max_bytes:,} bytes")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(str(path), "is no text") from None


def load_yaml(path: Path) -> DictConfig:
    """The config that a file holds.

    Raises:
        ConfigError: It cannot be read, stands for too much, or holds something else.
    """
    from omegaconf import DictConfig

    try:
        text = read_text(path)
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror or error}") from error
    found = parse_yaml(text, str(path))
    if not isinstance(found, DictConfig):
        raise ConfigError(str(path), "expected a config: names with values")
    return found


def parse_yaml(text: str, where: str) -> Any:
    """A config, or a list of configs, from YAML.

    Raises:
        ConfigError: It is no YAML, or stands for too much.
    """
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    check_yaml(text, where)
    try:
        return OmegaConf.create(text)
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError, RecursionError) as error:
        line = " ".join(str(error).split())[:200] or type(error).__name__
        raise ConfigError(where, f"is no YAML that can be read: {line}") from error


def load_plain_yaml(path: Path) -> Any:
    """What a YAML stands for, without OmegaConf; as quick as YAML can be.

    Raises:
        ConfigError: It is no YAML, or stands for too much.
        OSError: It cannot be read.
    """
    import yaml

    text = read_text(path)
    check_yaml(text, str(path))
    try:
        return yaml.load(
            text,
            Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader),
        )
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(str(path), "is no YAML that can be read") from error


def parse_json(text: str | bytes, where: str, max_size: int = MAX_JSON) -> Any:
    """What a JSON stands for.

    Args:
        text: The JSON.
        where: What to call it.
        max_size: How long it may be.

    Raises:
        ConfigError: It is none, or too long, or too deep.
    """
    if len(text) > max_size:
        raise ConfigError(where, f"has more than {max_size:,} characters")
    brackets: list[Any] = [b"[", b"{"] if isinstance(text, bytes) else ["[", "{"]
    nodes = sum(map(text.count, brackets))
    if nodes > MAX_JSON_NODES:
        raise ConfigError(where, f"holds more than {MAX_JSON_NODES:,} lists and mappings")
    try:
        found = json.loads(text)
    except RecursionError:
        raise _too_deep(where) from None
    except ValueError as error:
        raise ConfigError(where, f"is no JSON that can be read: {str(error)[:200]}") from error
    if nodes > MAX_JSON_DEPTH and _is_deep(found):
        raise _too_deep(where)
    return found


def read_json(path: Path, max_bytes: int = MAX_JSON) -> Any:
    """What the JSON in a file stands for.

    Raises:
        ConfigError: It is none, or too long, or too deep.
        OSError: It cannot be read.
    """
    return parse_json(read_text(path, max_bytes), str(path), max_bytes)


def _too_deep(where: str) -> ConfigError:
    return ConfigError(where, f"is deeper than {MAX_JSON_DEPTH} levels")


def _is_deep(value: Any) -> bool:
    """Whether lists and mappings lie within each other more than `MAX_JSON_DEPTH` times."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(MAX_JSON_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
    return bool(level)
