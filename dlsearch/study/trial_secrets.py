"""The secrets that the trials of one study need, and that its database has masked.

Only the command that opened the study knows them. It hands them to the workers that it forks.
Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from dlsearch.core.errors import ConfigError
from dlsearch.core.masking import MASK, mask

if TYPE_CHECKING:
    from dlsearch.core.types import ConfigTree

#: The keys that lead to a value of the config. The options of a searched group lie below
#: ``group=option``.
KeyPath: TypeAlias = tuple[str, ...]

#: What a trial is built from: elsewhere a mask is as good as what it hides.
BUILT_GROUPS = ("callbacks", "data", "model", "optimizer", "scheduler", "task", "transfer")


@dataclass(frozen=True)
class TrialSecrets:
    """The secrets of one study's config.

    Args:
        values: What a mask hides, by where it stands.
    """

    values: Mapping[KeyPath, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        options: Mapping[str, Mapping[str, Any]],
    ) -> TrialSecrets:
        """What of a config, and of the options of its groups, is masked where it is written."""
        values = dict(_find_masked(config, mask(config), ()))
        for group, nodes in options.items():
            for option, node in nodes.items():
                masked = mask(node, group)
                path = option_path(group, option)
                values.update(_find_masked(node, masked, path))
        return cls(values)

    def reveal(
        self,
        node: Any,
        path: KeyPath,
    ) -> Any:
        """A part of the config with the secrets in the place of their masks.

        Args:
            node: The part.
            path: Where it stands.

        Raises:
            ConfigError: One of the secrets is not known.
        """
        if isinstance(node, Mapping):
            revealed = {}
            for key, value in node.items():
                revealed[key] = self.reveal(value, (*path, str(key)))
            return revealed
        if isinstance(node, list):
            return [self.reveal(value, (*path, str(index))) for index, value in enumerate(node)]
        if not isinstance(node, str) or MASK not in node:
            return node
        if path in self.values:
            return self.values[path]
        raise ConfigError(
            ".".join(path),
            "is a secret, which the study's database does not hold",
            "the study's command can name it as ${oc.env:NAME}; NAME is then set on every machine",
        )

    def check_complete(
        self,
        config: Mapping[str, Any],
        options: Mapping[str, Mapping[str, ConfigTree]],
    ) -> None:
        """Check that every secret which a trial of the study could need is known.

        Args:
            config: The study's config, as its document has it.
            options: The options of each searched group.

        Raises:
            ConfigError: One is not.
        """
        for group in BUILT_GROUPS:
            if group not in options:
                self.reveal(config.get(group), (group,))
        for group, nodes in options.items():
            for option, node in nodes.items():
                self.reveal(node, option_path(group, option))


#: Those of a command that knows none.
NO_SECRETS = TrialSecrets()


def option_path(
    group: str,
    option: object,
) -> KeyPath:
    """Where an option of a searched group stands."""
    return (f"{group}={option}",)


def _find_masked(
    plain: Any,
    masked: Any,
    path: KeyPath,
) -> Iterator[tuple[KeyPath, Any]]:
    """What differs from its masked copy, with where it stands."""
    if isinstance(plain, Mapping):
        for key, value in plain.items():
            yield from _find_masked(value, masked[key], (*path, str(key)))
    elif isinstance(plain, (list, tuple)):
        for index, value in enumerate(plain):
            yield from _find_masked(value, masked[index], (*path, str(index)))
    elif plain != masked:
        yield path, plain
