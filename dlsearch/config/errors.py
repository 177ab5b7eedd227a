"""The error that a user caused and can mend: one line, one key, one hint."""

from __future__ import annotations


class ConfigError(ValueError):
    """Bad input. The command prints it as one line and exits with code 2.

    Args:
        key: The config key path (``optimizer.lr``), or the option, that is wrong.
        expected: What was expected, and what was found instead.
        hint: What to type instead.
    """

    def __init__(self, key: str, expected: str, hint: str = "") -> None:
        """Compose the one line."""
        self.key, self.expected, self.hint = key, expected, hint
        super().__init__(f"{key}: {expected}" + (f" (hint: {hint})" if hint else ""))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, str, str]]:
        """Pickle by the parts, so that it crosses process borders."""
        return (type(self), (self.key, self.expected, self.hint))
