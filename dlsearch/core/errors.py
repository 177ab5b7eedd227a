"""Errors that end a command with one line: a user's mistakes, and an outage."""

from __future__ import annotations

from collections.abc import Iterable

#: Exit code of a command after an outage of its database: EX_TEMPFAIL, the same may succeed later.
AWAY = 75


class ConfigError(ValueError):
    """Bad input. The command prints it as one line and exits with code 2.

    Args:
        key: The config key path (``optimizer.lr``), or the option, that is wrong.
        expected: What was expected, and what was found instead.
        hint: What to type instead.
    """

    def __init__(
        self,
        key: str,
        expected: str,
        hint: str = "",
    ) -> None:
        """Compose the one line."""
        self.key = key
        self.expected = expected
        self.hint = hint
        super().__init__(f"{key}: {expected}" + (f" (hint: {hint})" if hint else ""))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, str, str]]:
        """Pickle by the parts, so that it crosses process borders."""
        return (type(self), (self.key, self.expected, self.hint))


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """The hint that names the one of `known` that a misspelt name is nearest to.

    Args:
        name: What was typed.
        known: What there is.
        otherwise: The hint where nothing is near.
    """
    import difflib

    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]}?" if near else otherwise


class DatabaseAwayError(Exception):
    """The database did not answer for as long as it is waited for.

    The command ends with exit code 75.

    Args:
        seconds: How long it was waited for.
        why: What it, or the network, said last.
    """

    def __init__(self, seconds: float, why: str) -> None:
        """Compose the one line."""
        self.seconds = seconds
        self.why = why
        super().__init__(
            f"the database has been away for {seconds:.0f} s ({why}); "
            "once it is back, the same command goes on"
        )

    def __reduce__(self) -> tuple[type[DatabaseAwayError], tuple[float, str]]:
        """Pickle by the parts, so that it crosses process borders."""
        return (type(self), (self.seconds, self.why))
