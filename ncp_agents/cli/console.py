"""Where commands print what print() cannot: tables."""

from __future__ import annotations

from typing import Any

from rich.console import Console


class Terminal(Console):
    """rich's console without markup: a path may have brackets.

    Where the reader of the output, such as `head`, has ended, BrokenPipeError is raised, as with
    print.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def on_broken_pipe(self) -> None:
        """Called by rich."""
        raise BrokenPipeError
