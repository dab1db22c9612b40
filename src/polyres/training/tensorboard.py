"""Rows of the metrics shown in TensorBoard; the JSON lines stay the truth."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from polyres.core.errors import TrainingError

BOARD_FOLDER = "tensorboard"
LEFT_OUT = frozenset({"step", "best"})
"""What is no curve: the axis itself, and what stands in another row already."""


def check_board() -> None:
    """Find out whether TensorBoard is there."""
    if find_spec("tensorboard") is None:
        raise TrainingError(
            "tensorboard: true needs the package tensorboard; install it with: pip install 'polyres[tensorboard]', "
            "or set tensorboard: false"
        )


def scalars(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers of a row under names such as `loss/total`; members of lists are numbered."""
    for key, value in row.items():
        if not prefix and key in LEFT_OUT:
            continue
        if isinstance(value, list | tuple):
            value = {str(number): member for number, member in enumerate(value)}
        if isinstance(value, Mapping):
            yield from scalars(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{key}", float(value)


class Board:
    """Writes rows as curves; a context manager. One that is switched off does nothing."""

    def __init__(self, run: Path, first_step: int, on: bool) -> None:
        """Prepare to write."""
        self._folder, self._first_step, self._on = run / BOARD_FOLDER, first_step, on
        self._writer: Any = None

    def __enter__(self) -> Self:
        """Open the file."""
        if self._on:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # those of the package on import are its own
                from torch.utils.tensorboard import SummaryWriter
            self._writer = SummaryWriter(str(self._folder), purge_step=self._first_step)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def write(self, row: Mapping[str, Any]) -> None:
        """Add a row."""
        if self._writer is not None:
            for name, value in scalars(row):
                self._writer.add_scalar(name, value, row["step"])
            self._writer.flush()
