"""Where commands print."""

from __future__ import annotations

from typing import Any

from rich.console import Console


class Terminal(Console):
    """rich's console, which shows text as it is: a path may have brackets. A reader who goes away,
    such as `head`, is a BrokenPipeError, as with print.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError
