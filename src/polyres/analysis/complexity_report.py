"""Complexity as tables."""

from __future__ import annotations

from collections.abc import Sequence

from polyres.analysis.complexity import KINDS, OTHER
from polyres.analysis.measure import Complexity
from polyres.core.tables import MISSING, Table, number, whole

GIGA = 1e9

CONVENTION = (
    "A MAC is one multiplication and one addition. Counted: convolutions, linear layers, the products inside "
    "attention, and Fourier transforms at 1.25 n log2 n per frame (2.5 n log2 n operations); not element-wise work."
)


def complexity_page(results: Sequence[Complexity]) -> str:
    """Return all tables as a page of Markdown.

    Args:
        results: of the models.
    """
    tables = [summary_table(results), kinds_table(results), *map(parts_table, results)]
    return "# Complexity\n\n" + "\n".join(table.markdown() for table in tables)


def summary_table(results: Sequence[Complexity]) -> Table:
    """Return one row per model: size, cost, time, memory.

    Args:
        results: of the models.
    """
    header = ("model", "resolutions", "parameters", "audio s", "GMAC", "GMAC per s", "latency s", "real-time factor")
    table = Table("", (*header, "peak memory MiB"), text_columns=2, notes=tuple(_notes(results)))
    for result in results:
        speed = result.speed
        table.rows.append(
            (
                result.model,
                "; ".join(" ".join(map(str, n_fft)) for n_fft in dict.fromkeys(result.n_fft)),
                whole(result.cost.parameters),
                number(result.audio_s),
                number(result.cost.macs / GIGA),
                number(result.macs_per_second / GIGA, 3),
                number(speed.latency_s, 3) if speed else MISSING,
                number(speed.real_time_factor, 3) if speed else MISSING,
                whole(speed.peak_memory_mib) if speed and speed.peak_memory_mib is not None else MISSING,
            )
        )
    return table


def _notes(results: Sequence[Complexity]) -> list[str]:
    notes = [CONVENTION]
    for speed in (result.speed for result in results if result.speed):
        where = f"{speed.device} ({speed.hardware}), {speed.precision}"
        if speed.device == "cpu":
            where += f", threads: {speed.threads}"
        runs = len(speed.latencies_s)
        memory = "of the whole process" if speed.device == "cpu" else "of the tensors on the device"
        notes.append(
            f"Measured on {where}: median of {runs} warm passes of one piece of audio; real-time factor = seconds of "
            f"computing per second of audio; peak memory {memory}, a fresh one for every model."
        )
    return list(dict.fromkeys(notes))


def kinds_table(results: Sequence[Complexity]) -> Table:
    """Return one row per model: GMAC by kind of operation.

    Args:
        results: of the models.
    """
    kinds = [kind for kind in (*KINDS, OTHER) if any(kind in result.cost.by_kind for result in results)]
    table = Table("GMAC by kind of operation", ("model", *kinds))
    for result in results:
        values = (result.cost.by_kind.get(kind) for kind in kinds)
        table.rows.append(
            (result.model, *(number(None if value is None else value / GIGA, 3) for value in values)),
        )
    return table


def parts_table(result: Complexity) -> Table:
    """Return one row per part of a model.

    Args:
        result: of the model.
    """
    table = Table(f"Parts of {result.model}", ("part", "parameters", "GMAC", "GMAC per s", "% of GMAC"))
    for part in result.cost.parts:
        share = 100 * part.macs / result.cost.macs if result.cost.macs else 0.0
        macs, per_second = number(part.macs / GIGA, 3), number(part.macs / GIGA / result.audio_s, 4)
        table.rows.append((part.name, whole(part.parameters), macs, per_second, number(share, 1)))
    return table
