"""`polyres ladder`: where a codec loses what, rung by rung."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polyres.cli.enhance import _advance, _keep, _write, audio_files
from polyres.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from polyres.experiments.ladder import LadderRow
    from polyres.experiments.ladder_rungs import Rung, Workshop

ROWS_FILE, TABLE_FILE, PAGE_FILE, DONE_FILE = "rows.jsonl", "ladder.md", "ladder.html", "done.json"

Audio = Annotated[list[Path] | None, typer.Argument(metavar="AUDIO...", help="Files with audio, or folders of them.")]
CodecName = Annotated[str, typer.Option("--codec", help="Name or path, as for polyres reconstruct.")]
Golden = Annotated[
    Path | None, typer.Option(help="Audio that the codec made itself, such as R6.wav: it must pass nearly unharmed.")
]
Out = Annotated[Path, typer.Option(help="Folder for rows, table, page and sounds; finished files are not run again.")]
Seconds = Annotated[float, typer.Option(min=0.1, help="From the middle of each file; one window of the codec at most.")]
RungNames = Annotated[
    list[str] | None, typer.Option("--rung", help="R0 to R10; repeatable. All that the codec has by default.")
]
Bandwidth = Annotated[Path | None, typer.Option(help="Trained weights of a bandwidth extension, for R10.")]
Seed = Annotated[int, typer.Option(min=0, help="Of noise and of phases that start at random.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print rows as JSON lines instead of a table.")]


@dataclass(frozen=True)
class _Job:
    """What is run on every file."""

    shop: Workshop
    rungs: Sequence[Rung]
    seconds: float
    key: str


def register(app: typer.Typer) -> None:
    """Add `ladder` to the command.

    Args:
        app: the command.
    """
    app.command("ladder")(ladder)


def ladder(
    audio: Audio = None,
    codec: CodecName = "default",
    golden: Golden = None,
    out: Out = Path("ladder"),
    seconds: Seconds = 10.24,
    rung: RungNames = None,
    bandwidth: Bandwidth = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Take a codec apart and say which of its parts loses what.

    R0 changes nothing, R1 goes to spectra and back, R2 forgets the phase, R3 and R4 keep a mel spectrogram alone, R5
    to R7 pass the autoencoder, R8 are mistakes on purpose, R9 and R10 remedies. Beside them stand the file itself,
    silence and noise: a rung that scores no better than these is worth nothing. Metrics that compare waveforms are
    marked "invalid here" where the phase is made up. It ends with the rung that loses most in each band.

    Example: polyres ladder songs/ --codec audioldm2 --out ladder
    """
    from polyres.experiments.enhance_figure import check_matplotlib
    from polyres.experiments.ladder import missing_rungs
    from polyres.experiments.ladder_rungs import RUNGS

    if not audio:
        raise ConfigError("no audio to climb the ladder; name files or folders with audio")
    check_matplotlib()
    files = [(path, False) for path in audio_files(audio)]
    files += [(path, True) for path in audio_files([golden])] if golden is not None else []
    names = list(dict.fromkeys(rung)) if rung else RUNGS.names()
    for name in names:
        RUNGS.get(name)
    job = _job(codec, device, bandwidth, (seconds, seed), names)
    missing = missing_rungs(job.shop, names)
    rows, sounds = _climb_all(job, files, out)
    _keep(out / ROWS_FILE, "".join(json.dumps(row.to_dict()) + "\n" for row in rows))
    _report(rows, names, missing, sounds, out, as_json)


def _job(codec: str, device: str, bandwidth: Path | None, how: tuple[float, int], names: Sequence[str]) -> _Job:
    """Load what is needed; the key changes with anything that results depend on but the file."""
    from polyres.experiments.enhance_chain import Chain
    from polyres.experiments.ladder_rungs import RUNGS, Workshop
    from polyres.inference.codec import load_codec
    from polyres.models.network_weights import load_network

    loaded = load_codec(codec, device)
    network = None if bandwidth is None else load_network(bandwidth, ("bandwidth",)).module.to(loaded.device)
    seconds, seed = how
    facts = [loaded.name, loaded.fingerprint, loaded.model.config.to_dict(), seconds, seed, list(names)]
    facts.append(None if bandwidth is None else hashlib.sha256(bandwidth.read_bytes()).hexdigest())
    shop = Workshop(Chain(loaded.model), network, seed)  # type: ignore[arg-type]
    return _Job(shop, [RUNGS.build(name) for name in names], seconds, json.dumps(facts, sort_keys=True))


def _climb_all(
    job: _Job, files: Sequence[tuple[Path, bool]], out: Path
) -> tuple[list[LadderRow], dict[str, dict[str, Path]]]:
    """Run every file that is not finished yet, with a bar."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    rows: list[LadderRow] = []
    sounds: dict[str, dict[str, Path]] = {}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        for number, (path, golden) in enumerate(files):
            folder = out / "files" / f"{number + 1:02d}_{path.stem}{'_golden' if golden else ''}"
            found = _finished(job, path, folder)
            if found is None:
                report = partial(_advance, bars, bars.add_task(path.name, total=1.0))
                found = _climb_one(job, path, golden, folder, report)
            mine, labels = found
            rows += mine
            sounds[folder.name] = {label: folder / f"{_slug(label)}.wav" for label in labels}
    return rows, sounds


def _slug(label: str) -> str:
    return label.replace(" ", "_")


def _key(job: _Job, path: Path) -> str:
    about = path.stat()
    text = json.dumps([job.key, str(path.resolve()), about.st_size, about.st_mtime_ns])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _finished(job: _Job, path: Path, folder: Path) -> tuple[list[LadderRow], list[str]] | None:
    """Read what an earlier run left; None where it was another one, or did not get to the end."""
    from polyres.experiments.ladder import LadderRow

    try:
        done = json.loads((folder / DONE_FILE).read_text(encoding="utf-8"))
        if done["key"] != _key(job, path) or not all((folder / f"{_slug(n)}.wav").is_file() for n in done["takes"]):
            return None
        return [LadderRow.from_dict(row) for row in done["rows"]], done["takes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _climb_one(
    job: _Job, path: Path, golden: bool, folder: Path, report: Callable[[float], None]
) -> tuple[list[LadderRow], list[str]]:
    """Run all rungs on one file, and keep sounds and rows."""
    from polyres.experiments.ladder import climb
    from polyres.experiments.ladder_piece import read_piece

    codec = job.shop.codec
    piece = read_piece(path, codec, job.seconds)
    rows: list[LadderRow] = []
    takes = []
    for step in climb(job.shop, piece, job.rungs, report, golden):
        rows += step.rows
        if step.take.wave is not None:
            takes.append(step.rows[0].label)
            rate_hz = step.take.sample_rate_hz or codec.sample_rate_hz
            _write(folder / f"{_slug(takes[-1])}.wav", step.take.wave, rate_hz)
    done = {"key": _key(job, path), "takes": takes, "rows": [row.to_dict() for row in rows]}
    _keep(folder / DONE_FILE, json.dumps(done))
    return rows, takes


def _report(
    rows: Sequence[LadderRow],
    names: Sequence[str],
    missing: dict[str, str],
    sounds: dict[str, dict[str, Path]],
    out: Path,
    as_json: bool,
) -> None:
    """Write table and page, and print."""
    from polyres.analysis.ladder_page import ladder_page
    from polyres.analysis.ladder_page_tables import closing_lines, ladder_markdown, ladder_table
    from polyres.cli.tables import print_tables
    from polyres.experiments.ladder_rungs import RUNGS

    codec = rows[0].codec
    _keep(out / TABLE_FILE, ladder_markdown(rows, names, missing, codec))
    _keep(out / PAGE_FILE, ladder_page(rows, names, missing, sounds, codec))
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row.to_dict()))
        return
    print_tables([ladder_table(rows, codec, intervals=False)], markdown=False)
    for name, reason in missing.items():
        typer.echo(f"{name} is left out: {reason}")
    for line in closing_lines(rows, [RUNGS.build(name) for name in names]):
        typer.echo(line)
    typer.echo(f"written to {out}: {PAGE_FILE}, {TABLE_FILE}, {ROWS_FILE}", err=True)
