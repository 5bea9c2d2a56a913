"""`cloning.csv`: the figures of a cloning, a row per epoch."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ncp_agents.errors import UserError
from ncp_agents.files import atomic_write


@dataclass(frozen=True)
class Epoch:
    """A row of cloning.csv."""

    epoch: int
    seconds: float
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    eval_return: float | None = None


def write_epochs(path: Path, epochs: Sequence[Epoch]) -> None:
    """Replace a cloning.csv."""
    with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Epoch)])
        writer.writeheader()
        writer.writerows(asdict(epoch) for epoch in epochs)


def read_epochs(path: Path) -> list[Epoch]:
    """Return the rows of a cloning.csv; none where there is no file.

    Raises:
        UserError: a damaged file.
    """
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [_epoch(row) for row in csv.DictReader(file)]
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise UserError(f"{path} is damaged: {error}") from None


def _epoch(row: dict[str, str]) -> Epoch:
    values = {name: float(value) if value else None for name, value in row.items()}
    if None in [value for name, value in values.items() if name != "eval_return"]:
        raise ValueError(f"epoch {row['epoch']} is incomplete")
    return Epoch(**values | {"epoch": int(row["epoch"])})  # pyright: ignore[reportArgumentType]
