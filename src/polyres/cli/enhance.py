"""`polyres enhance`: enhancers between a codec's encoder and decoder, against each other and against trivial ones."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polyres.cli.shared.audio_jobs import (
    AsJson,
    Audio,
    CodecName,
    Device,
    Facts,
    FileJob,
    FoundFile,
    Overwrite,
    audio_files,
    file_job,
    file_mark,
    find_files,
    run_files,
    write_sound,
)
from polyres.core.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from polyres.audio.sources import PieceSource
    from polyres.codec.enhance.sweep import Chain, EnhanceOptions, EnhanceRow
    from polyres.core.tables import Table

ROWS_FILE = "enhance.jsonl"
FIGURE_FILE = "pareto.png"

Names = Annotated[
    list[str] | None, typer.Option("--enhancer", help="Which to run; repeatable. All that can be run by default.")
]
Strengths = Annotated[
    str | None, typer.Option("--strength", help="0 changes nothing, 1 is nominal; several with commas: 0.5,1.")
]
Tune = Annotated[
    bool, typer.Option("--tune", help="Sweep strengths; print and draw the best trade-offs of highs against the rest.")
]
Out = Annotated[Path | None, typer.Option(help="Folder for sounds, rows and the figure; none are kept without it.")]
Seconds = Annotated[
    float, typer.Option(min=0.5, help="Of each file; more than a window of the codec goes window by window.")
]
Whole = Annotated[bool, typer.Option("--whole", help="All of each file, window by window.")]
Start = Annotated[float | None, typer.Option(min=0.0, help="Second of each file to begin at; its middle by default.")]
Typical = Annotated[
    list[Path] | None,
    typer.Option(help="Other files whose averages are matched, as a decoder could; repeatable. See below."),
]
Networks = Annotated[
    list[str] | None, typer.Option("--network", metavar="ENHANCER=FILE", help="Trained weights, such as learned=RUN.")
]
Steps = Annotated[int, typer.Option(min=1, help="Of the gradient descent of optimise.")]
Seed = Annotated[int, typer.Option(min=0, help="Of noise.")]

_KINDS = {"learned": "latent_enhancer", "refine": "mel_refiner", "refine_informed": "mel_refiner"}


def enhance(
    audio: Audio = None,
    codec: CodecName = "audioldm2",
    names: Names = None,
    strength: Strengths = None,
    tune: Tune = False,
    out: Out = None,
    seconds: Seconds = 10.24,
    whole: Whole = False,
    start: Start = None,
    typical: Typical = None,
    network: Networks = None,
    steps: Steps = 60,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: AsJson = False,
    overwrite: Overwrite = False,
) -> None:
    """Change a codec's latent before it is decoded, and measure what that is worth.

    Every result is brought to the level of the original first: louder is not better. high err is the distance of the
    log-mel spectra above 4 kHz, which noise of the right energy does not win; kept is the share of energy there, which
    anything loud wins. gain_match and ltas_match are trivial: a remedy has to beat them. Rows marked "original" have
    seen the original (optimise is the upper bound), as has what matches averages, unless --typical names other files.

    Example: polyres enhance song.wav --codec audioldm2 --tune --out enhanced
    """
    from polyres.codec.enhance.sweep import DEFAULT_STRENGTHS
    from polyres.report.figures import check_matplotlib

    if not audio:
        raise ConfigError("nothing to enhance; name files or folders with audio")
    if tune and out is not None:
        check_matplotlib()
    if tune and strength is not None and "," not in strength:
        raise ConfigError(f"--tune sweeps strengths, but --strength is {strength}; give several with commas, or none")
    files, others = find_files(audio, out), audio_files(typical or [])
    strengths = _strengths(strength) if strength is not None else DEFAULT_STRENGTHS if tune else (1.0,)
    span_s = math.inf if whole else seconds
    networks = dict(_network(entry) for entry in network or [])
    chain, about = _chain(codec, device, network or [], others)
    options = _options(chain, names, strengths, (networks, others), (seconds, steps, seed))
    jobs = _jobs(files, out, [*about, list(options.names), list(strengths), str(span_s), start, steps, seed])
    done = run_files(jobs, partial(_run, chain, options, (span_s, start)), overwrite)
    if done:
        _report([row for _, facts in done for row in facts["rows"]], tune, out, as_json)
    if len(done) < len(jobs):
        raise typer.Exit(2)


def _chain(codec: str, device: str, networks: Sequence[str], typical: Sequence[Path]) -> tuple[Chain, list[object]]:
    """Load the codec; also what results depend on beside numbers: weights of all networks, and other files."""
    from polyres.codec.enhance.sweep import Chain
    from polyres.codec.load import load_codec

    loaded = load_codec(codec, device)
    weights = [[entry, file_mark(entry.partition("=")[2])] for entry in networks]
    others = [[os.path.realpath(path), path.stat().st_size, path.stat().st_mtime_ns] for path in typical]
    return Chain(loaded.model), [loaded.name, loaded.fingerprint, loaded.model.config.to_dict(), weights, others]


def _options(
    chain: Chain,
    names: Sequence[str] | None,
    strengths: tuple[float, ...],
    given: tuple[Mapping[str, nn.Module], Sequence[Path]],
    numbers: tuple[float, int, int],
) -> EnhanceOptions:
    """Say what is tried; refuse what cannot be, before anything is run."""
    from polyres.codec.enhance.sweep import EnhanceOptions, check_names, typical_statistics, usable_names

    (networks, typical), (seconds, steps, seed) = given, numbers
    for module in networks.values():
        module.to(chain.codec.device)
    options = EnhanceOptions(
        names=tuple(names) if names else usable_names(chain, networks),
        strengths=strengths,
        seed=seed,
        steps=steps,
        typical=typical_statistics(chain, typical, seconds) if typical else None,
        networks=networks,
    )
    check_names(options, chain)
    return options


def _jobs(files: Sequence[FoundFile], out: Path | None, settings: Sequence[object]) -> list[FileJob]:
    """Give every file a folder and a key."""
    from polyres.batch.jobs import folder_name

    folders = [
        None if out is None else out / folder_name(f"{n:02d}_{path.stem}") for n, (path, _) in enumerate(files, 1)
    ]
    return [file_job(file, folder, settings) for file, folder in zip(files, folders, strict=True)]


def _strengths(text: str) -> tuple[float, ...]:
    try:
        values = tuple(sorted({float(word) for word in text.split(",") if word.strip()}))
    except ValueError:
        values = ()
    if not values or min(values) <= 0:
        raise ConfigError(f"--strength is {text!r}; give a number above 0, or several with commas: 0.5,1")
    return values


def _network(entry: str) -> tuple[str, nn.Module]:
    """Load what one --network names."""
    from polyres.codec.networks import load_network

    name, equals, path = entry.partition("=")
    if not equals or name not in _KINDS:
        raise ConfigError(f"--network is {entry!r}; write ENHANCER=FILE with one of {', '.join(_KINDS)}")
    return name, load_network(path, (_KINDS[name],)).module


def _run(
    chain: Chain,
    options: EnhanceOptions,
    span: tuple[float, float | None],
    job: FileJob,
    folder: Path | None,
    report: Callable[[float], None],
) -> Facts:
    """Run everything on one file; keep sounds and rows."""
    from polyres.codec.enhance.long_files import enhance_long, sound_name
    from polyres.codec.enhance.sweep import run_enhancers

    if (long := _longer(chain, job.input, *span)) is not None:
        return {"rows": [row.to_dict() for row in enhance_long(chain, long, options, folder, report)]}
    excerpt = chain.excerpt(job.input, *span)
    rate_hz = chain.codec.sample_rate_hz
    if folder is not None:
        write_sound(folder / "original.wav", excerpt.wave.flatten(0, 1), rate_hz)
    rows = []
    for one in run_enhancers(chain, excerpt, options, report):
        rows.append(one.row.to_dict())
        if folder is not None:
            write_sound(folder / f"{sound_name(one.row)}.wav", one.wave, rate_hz)
    return {"rows": rows}


def _longer(chain: Chain, path: Path, seconds: float, start_s: float | None) -> PieceSource | None:
    """Return a piece that is longer than a window of the codec; None where it is not."""
    from polyres.audio.files import probe
    from polyres.audio.sources import PieceSource

    window_s = chain.codec.window_samples / chain.codec.sample_rate_hz
    info = probe(path)
    length_s = math.inf if info.length_samples is None else info.length_samples / info.sample_rate_hz
    whole = math.isinf(seconds)
    start = start_s if start_s is not None else 0.0 if whole else max(0.0, (length_s - seconds) / 2)
    if min(seconds, length_s - start) <= window_s or math.isinf(start):
        return None
    return PieceSource(path, start, seconds)


def _report(plain: Sequence[Mapping[str, Any]], tune: bool, out: Path | None, as_json: bool) -> None:
    """Keep the rows of all files, and print."""
    from polyres.cli.shared.terminal import print_tables
    from polyres.codec.enhance.sweep import EnhanceRow, summarise
    from polyres.core.whole_files import write_whole

    rows = [EnhanceRow(**row) for row in plain]
    if out is not None:
        write_whole(out / ROWS_FILE, "".join(json.dumps(row.to_dict()) + "\n" for row in rows))
    whole = summarise(rows)
    if tune and out is not None:
        from polyres.codec.enhance.sweep import draw_front

        draw_front(whole, out / FIGURE_FILE)
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row.to_dict()))
        return
    print_tables([_table(whole, tune)], markdown=False)
    if out is not None:
        typer.echo(f"written to {out}: sounds, {ROWS_FILE}{', ' + FIGURE_FILE if tune else ''}", err=True)


def _table(rows: Sequence[EnhanceRow], tune: bool) -> Table:
    from polyres.codec.enhance.sweep import pareto_front
    from polyres.core.tables import Table

    front = {(row.enhancer, row.strength) for row in pareto_front(rows)} if tune else set()
    first = rows[0]
    header = ("enhancer", "sees", "strength", "high err", "LSD", "log-mel", "MR-STFT", "high dB", "kept %", "gain dB")
    header += (*(("SNR dB",) if "snr" in first.scores else ()), "mel err", "RTF")
    lines = []
    for row in rows:
        scores = row.scores
        mark = " *" if (row.enhancer, row.strength) in front else ""
        sees = "original" if row.informed else "control" if row.control else "latent"
        cells = [row.enhancer + mark, sees, f"{row.strength:g}"]
        cells += [f"{scores[name]:.3f}" for name in ("log_mel_l1_high", "lsd", "log_mel_l1", "mr_stft")]
        cells += [f"{scores['band_error_high']:+.1f}", f"{scores['retention_high']:.1f}", f"{row.gain_db:+.1f}"]
        cells += [f"{scores['snr']:.2f}"] if "snr" in scores else []
        cells += [f"{row.mel_l1:.3f}", f"{row.real_time_factor:.4f}"]
        lines.append(tuple(cells))
    notes = [
        "levels matched before scoring; high: above 4 kHz; mel err: log-mel L1 before synthesis; medians over files"
    ]
    if "snr" not in first.scores:
        notes.append("SNR and correlation are left out: this chain makes up its own phase, so silence would beat it")
    if tune:
        notes.append("* no other that has not seen the original is better in both high err and LSD")
    return Table(f"{first.codec}, {first.file}", header, lines, text_columns=2, notes=tuple(notes))
