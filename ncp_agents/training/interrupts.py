"""Ending long work in good order on SIGINT (Ctrl-C) and SIGTERM."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Self


class InterruptHandler:
    """A context that records the first signal; a second one raises KeyboardInterrupt.

    Attributes:
        received: the signal, None without one.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def should_stop(self) -> bool:
        """Return whether a signal came."""
        return self.received is not None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            self.__exit__()
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
