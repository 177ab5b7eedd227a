"""What other loggers can do and ours cannot: called, it does nothing, and is said once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType


class Missing:
    """Stands for an attribute that is not there; whatever is done with it does nothing.

    Code that was written for another logger draws histograms, pictures and tables with its
    ``experiment``. A training must not end of that.

    Args:
        name: Of the attribute, as it is said.
    """

    def __init__(self, name: str) -> None:
        """Nothing is called yet."""
        self._name = name

    def __getattr__(self, name: str) -> Missing:
        """What stands behind it, which does nothing either."""
        if name.startswith("__"):  # what Python itself looks for
            raise AttributeError(name)
        return self

    def __call__(self, *_: Any, **__: Any) -> Missing:
        """Nothing."""
        return self

    def __getitem__(self, _: Any) -> Missing:
        """Nothing."""
        return self

    def __setitem__(self, _: Any, __: Any) -> None:
        """Nothing."""

    def __iter__(self) -> Iterator[Any]:
        """Nothing."""
        return iter(())

    def __bool__(self) -> bool:
        """It is not there."""
        return False

    def __enter__(self) -> Missing:
        """Nothing."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Nothing."""

    def __str__(self) -> str:
        """Its name."""
        return self._name


class Experiment:
    """A journal, as ``logger.experiment``.

    What it has is the journal's; what it lacks is :class:`Missing`.

    Args:
        journal: The run's.
        miss: Is told of what is lacking, and gives what stands for it.
    """

    def __init__(self, journal: Any, miss: Callable[[str], Missing]) -> None:
        """Nothing is lacking yet."""
        self._journal = journal
        self._miss = miss

    def __getattr__(self, name: str) -> Any:
        """Of the journal, or what stands for it."""
        if name.startswith("_"):
            raise AttributeError(name)
        found = getattr(self._journal, name, None)
        return self._miss(f"experiment.{name}") if found is None else found

    def __getitem__(self, _: Any) -> Missing:
        """Nothing: a journal has no places of its own."""
        return self._miss("experiment[…]")

    def __setitem__(self, _: Any, __: Any) -> None:
        """Nothing."""
        self._miss("experiment[…]")
