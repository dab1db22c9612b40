"""`polyres enhance`: enhancers between a codec's encoder and decoder, against each other and against trivial ones."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polyres.core.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID
    from torch import Tensor, nn

    from polyres.analysis.tables import Table
    from polyres.experiments.enhance import EnhanceOptions, EnhanceRow
    from polyres.experiments.enhance_chain import Chain

ROWS_FILE = "enhance.jsonl"
FIGURE_FILE = "pareto.png"

Audio = Annotated[list[Path] | None, typer.Argument(metavar="AUDIO...", help="Files with audio, or folders of them.")]
CodecName = Annotated[str, typer.Option("--codec", help="Name or path, as for polyres reconstruct.")]
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
Seconds = Annotated[float, typer.Option(min=0.5, help="Of each file; one window of the codec at most.")]
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
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print rows as JSON lines instead of a table.")]

_KINDS = {"learned": "latent_enhancer", "refine": "mel_refiner", "refine_informed": "mel_refiner"}


def register(app: typer.Typer) -> None:
    """Add `enhance` to the command.

    Args:
        app: the command.
    """
    app.command("enhance")(enhance)


def enhance(
    audio: Audio = None,
    codec: CodecName = "audioldm2",
    names: Names = None,
    strength: Strengths = None,
    tune: Tune = False,
    out: Out = None,
    seconds: Seconds = 10.24,
    start: Start = None,
    typical: Typical = None,
    network: Networks = None,
    steps: Steps = 60,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Change a codec's latent before it is decoded, and measure what that is worth.

    Every result is brought to the level of the original first: louder is not better. high err is the distance of the
    log-mel spectra above 4 kHz, which noise of the right energy does not win; kept is the share of energy there, which
    anything loud wins. gain_match and ltas_match are trivial: a remedy has to beat them. Rows marked "original" have
    seen the original (optimise is the upper bound), as has what matches averages, unless --typical names other files.

    Example: polyres enhance song.wav --codec audioldm2 --tune --out enhanced
    """
    from polyres.experiments.enhance import DEFAULT_STRENGTHS, EnhanceOptions, check_names, typical_statistics
    from polyres.experiments.enhance_chain import Chain
    from polyres.experiments.enhance_figure import check_matplotlib
    from polyres.inference.codec import load_codec

    if not audio:
        raise ConfigError("nothing to enhance; name files or folders with audio")
    if tune and out is not None:
        check_matplotlib()
    if tune and strength is not None and "," not in strength:
        raise ConfigError(f"--tune sweeps strengths, but --strength is {strength}; give several with commas, or none")
    files = audio_files(audio)
    strengths = _strengths(strength) if strength is not None else DEFAULT_STRENGTHS if tune else (1.0,)
    networks = _networks(network or [])
    chain = Chain(load_codec(codec, device).model)
    for module in networks.values():
        module.to(chain.codec.device)
    options = EnhanceOptions(
        names=tuple(names) if names else _usable(chain, networks),
        strengths=strengths,
        seed=seed,
        steps=steps,
        typical=typical_statistics(chain, audio_files(typical), seconds) if typical else None,
        networks=networks,
    )
    check_names(options, chain)
    rows = _run(chain, files, options, (seconds, start), out)
    _show(rows, tune, out, as_json)


def _usable(chain: Chain, networks: Mapping[str, nn.Module]) -> tuple[str, ...]:
    from polyres.experiments.enhance import usable_names

    return usable_names(chain, networks)


def audio_files(given: Sequence[Path]) -> list[Path]:
    """Find the files that are meant.

    Args:
        given: files, or folders whose audio files count.

    Returns:
        Files, those of a folder by name.

    Raises:
        ConfigError: if one is not there or a folder has none.
    """
    endings = {".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".aiff", ".aif", ".wma", ".webm", ".mp4"}
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in endings and not p.name.startswith("."))
            if not inside:
                raise ConfigError(f"{path} holds no audio files; name a folder that does")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise ConfigError(f"there is no file {path}; check the path")
    return found


def _strengths(text: str) -> tuple[float, ...]:
    try:
        values = tuple(sorted({float(word) for word in text.split(",") if word.strip()}))
    except ValueError:
        values = ()
    if not values or min(values) <= 0:
        raise ConfigError(f"--strength is {text!r}; give a number above 0, or several with commas: 0.5,1")
    return values


def _networks(given: Sequence[str]) -> dict[str, nn.Module]:
    from polyres.models.network_weights import load_network

    found = {}
    for entry in given:
        name, equals, path = entry.partition("=")
        if not equals or name not in _KINDS:
            raise ConfigError(f"--network is {entry!r}; write ENHANCER=FILE with one of {', '.join(_KINDS)}")
        found[name] = load_network(path, (_KINDS[name],)).module
    return found


def _run(
    chain: Chain, files: Sequence[Path], options: EnhanceOptions, span: tuple[float, float | None], out: Path | None
) -> list[EnhanceRow]:
    """Run everything on every file, with a bar; keep sounds and rows."""
    from rich.console import Console
    from rich.progress import Progress

    from polyres.experiments.enhance import run_enhancers

    console = Console(stderr=True)
    rows = []
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        for number, path in enumerate(files):
            bar = bars.add_task(path.name, total=1.0)
            excerpt = chain.excerpt(path, *span)
            folder = None if out is None else out / f"{number + 1:02d}_{path.stem}"
            rate_hz = chain.codec.sample_rate_hz
            if folder is not None:
                _write(folder / "original.wav", excerpt.wave.flatten(0, 1), rate_hz)
            for one in run_enhancers(chain, excerpt, options, partial(_advance, bars, bar)):
                rows.append(one.row)
                if folder is not None:
                    name = one.row.enhancer if one.row.strength == 0 else f"{one.row.enhancer}_{one.row.strength:g}"
                    _write(folder / f"{name}.wav", one.wave, rate_hz)
    if out is not None:
        _keep(out / ROWS_FILE, "".join(json.dumps(row.to_dict()) + "\n" for row in rows))
    return rows


def _advance(bars: Progress, bar: TaskID, share: float) -> None:
    """Move a bar to the finished share."""
    bars.update(bar, completed=share)


def _write(path: Path, wave: Tensor, sample_rate_hz: int) -> None:
    """Write a sound, its peaks kept."""
    from polyres.inference.codec_files import write_blocks

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {path.parent}: {error.strerror}; choose another --out") from error
    write_blocks([wave.float()], path, sample_rate_hz, wave.shape[0])


def _keep(path: Path, text: str) -> None:
    """Write a text whole or not at all."""
    unfinished = path.with_name(f".{path.name}.partial")
    try:
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; choose another --out") from error


def _show(rows: Sequence[EnhanceRow], tune: bool, out: Path | None, as_json: bool) -> None:
    from polyres.cli.tables import print_tables
    from polyres.experiments.enhance import summarise

    whole = summarise(rows)
    if tune and out is not None:
        from polyres.experiments.enhance_figure import draw_front

        draw_front(whole, out / FIGURE_FILE)
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row.to_dict()))
        return
    print_tables([_table(whole, tune)], markdown=False)
    if out is not None:
        typer.echo(f"written to {out}: sounds, {ROWS_FILE}{', ' + FIGURE_FILE if tune else ''}", err=True)


def _table(rows: Sequence[EnhanceRow], tune: bool) -> Table:
    from polyres.analysis.tables import Table
    from polyres.experiments.enhance import pareto_front

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
