"""Rows of scores as a Parquet file; needs pyarrow, the extra `parquet`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from polyres.core.errors import ConfigError, OutputError
from polyres.core.whole_files import replaced_atomically
from polyres.experiments.rows import ScoreRow


def check_pyarrow() -> None:
    """Refuse to start without pyarrow.

    Raises:
        ConfigError: saying how to install it.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "Parquet needs pyarrow; install it with pip install 'polyres[parquet]', or leave out --parquet"
        ) from error


def write_parquet(rows: Sequence[ScoreRow], path: Path) -> None:
    """Write rows as a table with a column per field, in one step; every column may hold nulls.

    Args:
        rows: what to write.
        path: of the file; its folder is made if missing.

    Raises:
        ConfigError: without pyarrow.
        OutputError: when the file cannot be written.
    """
    check_pyarrow()
    import pyarrow
    from pyarrow import parquet

    kinds = {"str": pyarrow.string(), "float": pyarrow.float64(), "int": pyarrow.int64()}
    schema = pyarrow.schema([(field.name, kinds[str(field.type).partition(" ")[0]]) for field in fields(ScoreRow)])
    table = pyarrow.Table.from_pylist([asdict(row) for row in rows], schema=schema)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced_atomically(path) as temporary:
            parquet.write_table(table, temporary)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"cannot write '{path}' ({reason}); free space or choose another --out") from error
