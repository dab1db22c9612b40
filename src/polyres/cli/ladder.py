"""`polyres ladder`: where a codec loses what, rung by rung."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    file_job,
    file_mark,
    find_files,
    run_files,
    write_sound,
)
from polyres.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from polyres.codec.ladder.climb import LadderRow
    from polyres.codec.ladder.page import Distributions
    from polyres.codec.ladder.rungs import Rung, Workshop

ROWS_FILE, TABLE_FILE, PAGE_FILE = "rows.jsonl", "ladder.md", "ladder.html"
FORMAT = 2
"""Of what is kept of a file; results of another are made again."""

Golden = Annotated[
    Path | None, typer.Option(help="Audio that the codec made itself, such as R6.wav: it must pass nearly unharmed.")
]
Out = Annotated[Path, typer.Option(help="Folder for rows, table, page and sounds; finished files are not run again.")]
Seconds = Annotated[float, typer.Option(min=0.1, help="From the middle of each file; one window of the codec at most.")]
RungNames = Annotated[
    list[str] | None, typer.Option("--rung", help="R0 to R10; repeatable. All that the codec has by default.")
]
Bandwidth = Annotated[
    Path | None, typer.Option(help="Weights of a bandwidth extension, for R10.", show_default="those of the package")
]
Seed = Annotated[int, typer.Option(min=0, help="Of noise and of phases that start at random.")]


@dataclass(frozen=True)
class _Climbing:
    """What is run on every file; the settings are all that results depend on but the file."""

    shop: Workshop
    rungs: Sequence[Rung]
    seconds: float
    settings: list[object]


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
    overwrite: Overwrite = False,
) -> None:
    """Take a codec apart and say which of its parts loses what.

    R0 changes nothing, R1 goes to spectra and back, R2 forgets the phase, R3 and R4 keep a mel spectrogram alone, R5
    to R7 pass the autoencoder, R8 are mistakes on purpose, R9 and R10 remedies. Beside them stand the file itself,
    silence and noise: a rung that scores no better than these is worth nothing. Metrics that compare waveforms are
    marked "invalid here" where the phase is made up. It ends with the rung that loses most in each band.

    Example: polyres ladder songs/ --codec audioldm2 --out ladder
    """
    from polyres.codec.ladder.climb import LadderRow, missing_rungs
    from polyres.codec.ladder.rungs import RUNGS
    from polyres.core.whole_files import write_whole
    from polyres.report.figures import check_matplotlib

    if not audio:
        raise ConfigError("no audio to climb the ladder; name files or folders with audio")
    check_matplotlib()
    files = [(file, False) for file in find_files(audio, out)]
    files += [(file, True) for file in find_files([golden])] if golden is not None else []
    names = list(dict.fromkeys(rung)) if rung else RUNGS.names()
    for name in names:
        RUNGS.get(name)
    climbing = _climbing(codec, device, bandwidth, (seconds, seed), names)
    missing = missing_rungs(climbing.shop, names)
    jobs = _jobs(climbing, files, out)
    golden_jobs = [job for job, (_, is_golden) in zip(jobs, files, strict=True) if is_golden]
    done = run_files(jobs, partial(_climb, climbing, golden_jobs), overwrite)
    if done:
        rows = [LadderRow.from_dict(row) for _, facts in done for row in facts["rows"]]
        measured = _distributions(climbing, [(job in golden_jobs, facts) for job, facts in done])
        sounds = {job.folder.name: _sounds(job.folder, facts) for job, facts in done if job.folder is not None}
        write_whole(out / ROWS_FILE, "".join(json.dumps(row.to_dict()) + "\n" for row in rows))
        _report(rows, (names, missing), sounds, measured, out, as_json)
    if len(done) < len(jobs):
        raise typer.Exit(2)


def _distributions(climbing: _Climbing, done: Sequence[tuple[bool, Facts]]) -> Distributions:
    """Read what was measured on the way, golden files apart."""
    from polyres.codec.ladder.climb import Distribution, expected_std
    from polyres.codec.ladder.page import Distributions

    found: tuple[list[Distribution], list[Distribution]] = ([], [])
    for is_golden, facts in done:
        found[is_golden].extend(Distribution.from_dict(plain) for plain in facts["distributions"])
    return Distributions(*found, *expected_std(climbing.shop.codec))


def _jobs(climbing: _Climbing, files: Sequence[tuple[FoundFile, bool]], out: Path) -> list[FileJob]:
    """Give every file a folder and a key."""
    from polyres.batch.jobs import folder_name

    jobs = []
    for number, (file, golden) in enumerate(files, 1):
        name = folder_name(f"{number:02d}_{file[0].stem}{'_golden' if golden else ''}")
        jobs.append(file_job(file, out / "files" / name, [climbing.settings, golden, FORMAT]))
    return jobs


def _sounds(folder: Path, facts: Facts) -> dict[str, Path]:
    return {label: folder / f"{_slug(label)}.wav" for label in facts["takes"]}


def _climbing(
    codec: str, device: str, bandwidth: Path | None, how: tuple[float, int], names: Sequence[str]
) -> _Climbing:
    """Load what is needed."""
    from polyres.codec.enhance.sweep import Chain
    from polyres.codec.ladder.rungs import RUNGS, Workshop
    from polyres.codec.load import load_codec
    from polyres.codec.networks import load_network
    from polyres.codec.staged.config import EMBEDDED_BAND_FILE

    loaded = load_codec(codec, device)
    if bandwidth is None and EMBEDDED_BAND_FILE.is_file():
        bandwidth = EMBEDDED_BAND_FILE
    network = None if bandwidth is None else load_network(bandwidth, ("bandwidth",)).module.to(loaded.device)
    seconds, seed = how
    settings = [loaded.name, loaded.fingerprint, loaded.model.config.to_dict(), seconds, seed, list(names)]
    settings.append(None if bandwidth is None else file_mark(bandwidth))
    shop = Workshop(Chain(loaded.model), network, seed)  # type: ignore[arg-type]
    return _Climbing(shop, [RUNGS.build(name) for name in names], seconds, settings)


def _slug(label: str) -> str:
    return label.replace(" ", "_")


def _climb(
    climbing: _Climbing, golden: Sequence[FileJob], job: FileJob, folder: Path | None, report: Callable[[float], None]
) -> Facts:
    """Run all rungs on one file, and keep sounds and rows."""
    from polyres.codec.ladder.climb import climb, distributions
    from polyres.codec.ladder.rungs import read_piece

    codec = climbing.shop.codec
    piece = read_piece(job.input, codec, climbing.seconds)
    rows: list[LadderRow] = []
    takes = []
    for step in climb(climbing.shop, piece, climbing.rungs, report, job in golden):
        rows += step.rows
        if step.take.wave is not None and folder is not None:
            takes.append(step.rows[0].label)
            rate_hz = step.take.sample_rate_hz or codec.sample_rate_hz
            write_sound(folder / f"{_slug(takes[-1])}.wav", step.take.wave, rate_hz)
    measured = [one.to_dict() for one in distributions(climbing.shop, piece)]
    return {"takes": takes, "rows": [row.to_dict() for row in rows], "distributions": measured}


def _report(
    rows: Sequence[LadderRow],
    rungs: tuple[Sequence[str], dict[str, str]],
    sounds: dict[str, dict[str, Path]],
    measured: Distributions,
    out: Path,
    as_json: bool,
) -> None:
    """Write table and page, and print."""
    from polyres.cli.shared.terminal import print_tables
    from polyres.codec.ladder.page import ladder_page
    from polyres.codec.ladder.rungs import RUNGS
    from polyres.codec.ladder.tables import closing_lines, ladder_markdown, ladder_table
    from polyres.core.whole_files import write_whole

    (names, missing), codec = rungs, rows[0].codec
    write_whole(out / TABLE_FILE, ladder_markdown(rows, names, missing, codec))
    write_whole(out / PAGE_FILE, ladder_page(rows, names, missing, sounds, codec, measured))
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
