r"""What dlsearch itself writes to a terminal, or where one may be. Imports nothing heavy.

Names, notes, errors, values of categories and hosts come out of databases, journals, records and
YAMLs that somebody else may have written. Each of our lines is one line, with every character that
a terminal obeys written out: ``\x1b``. What libraries and a user's code write passes
:func:`dlsearch.console.streams.tame`, which leaves them their colours.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO

from dlsearch.console.streams import escaped

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

#: Joiners, which belong to the words of some languages and to pictures of people, and spaces of
#: other widths.
_KEPT = "\u200c\u200d\u00a0\u2007\u2009\u202f\u3000"
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def shown(text: str) -> str:
    r"""`text` as one line that changes nothing on a terminal.

    Escape becomes ``\x1b``, a newline ``\n``.
    """
    if text.isprintable():
        return text
    return "".join(map(_show_character, text))


def _show_character(character: str) -> str:
    if character.isprintable() or character in _KEPT:
        return character
    return _SHORT.get(character) or escaped(character)


def say(*lines: str, to: TextIO | None = None) -> None:
    """Write lines to standard output.

    Args:
        *lines: Without their newlines.
        to: Another stream.
    """
    out = sys.stdout if to is None else to
    shown_lines = [f"{shown(line)}\n" for line in lines]
    out.write("".join(shown_lines))


def warn(*lines: str, prefix: str = "dlsearch: ") -> None:
    """Write lines to standard error, each said to be dlsearch's, and have them appear."""
    prefixed = [f"{prefix}{line}" for line in lines]
    say(*prefixed, to=sys.stderr)
    sys.stderr.flush()


def console(file: TextIO | None = None) -> Console:
    """A console of rich's whose texts are shown as by :func:`shown`.

    Colours and moves of the cursor come from rich alone.

    Args:
        file: Where it writes; standard output by default.
    """
    from rich.console import Console
    from rich.segment import Segment

    class _Console(Console):
        def render(
            self, renderable: RenderableType, options: ConsoleOptions | None = None
        ) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                text = segment.text
                if segment.control or text.isprintable() or text == "\n":
                    yield segment
                    continue
                lines = [shown(line) for line in text.split("\n")]
                yield Segment("\n".join(lines), segment.style)

    return _Console(
        file=file,
        markup=False,
        emoji=False,
        highlight=False,
    )
