"""`polyres listen`: blind listening tests, from folders of results to a report."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polyres.core.errors import ConfigError, InputError

if TYPE_CHECKING:
    from polyres.listen.analysis.analyse import Analysis
    from polyres.listen.design.files import ListenStudy

REPORT_FOLDER = "report"

StudyDir = Annotated[Path, typer.Argument(metavar="STUDY", help="Folder that polyres listen new has made.")]
Ratings = Annotated[
    str | None,
    typer.Option(
        "--ratings",
        metavar="SOURCE",
        help="File (.csv, .json, .jsonl, .parquet, SQLite) or URL of a database. By default the study's own database, "
        "or simulated ratings where nobody has listened yet.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Of all random draws.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


def register(app: typer.Typer) -> None:
    """Add `listen` to the command."""
    group = typer.Typer(
        no_args_is_help=True,
        help="Blind listening tests: make one, serve it, analyse it. Begin with new; simulate and power help planning.",
    )
    for command in (new, serve, score, analyse, export, simulate, power):
        group.command(command.__name__)(command)
    app.add_typer(group, name="listen")


def new(
    recipe: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="What to compare, or a webMUSHRA config.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the study; the name of the recipe.")] = None,
    root: Annotated[Path | None, typer.Option(help="webMUSHRA only: what its files are relative to.")] = None,
    pad: Annotated[
        int,
        typer.Option(
            min=0,
            max=4096,
            metavar="SAMPLES",
            help="webMUSHRA only: add silence to sounds up to so many samples shorter than others of their page.",
        ),
    ] = 0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the recipe; repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a study from folders of separated stems.

    A recipe names the references (DIR/SONG/STEM.wav), the systems (label: OUT/MODEL as separate writes them) and how
    the test goes:

        name: drums-and-bass
        title: Which drums and bass sound better?
        kind: mushra            # bs2132, bs1116, abx, ab, acr, dcr, likert
        references: data/test
        systems: {htdemucs: separated/htdemucs, polyres: separated/polyres-small}
        stems: [drums, bass]
        anchors: [low, mid, interference]
        excerpts: {per_track: 1, length_s: 10, seed: 0}
        attributes:
          - {name: quality, question: "How good is the sound?"}

    Excerpts are drawn by the seed from where all sources sound, matched in loudness (BS.1770), and stored under names
    that tell nothing.
    """
    from polyres.listen.design.build import build_study
    from polyres.listen.design.files import StudyRecipe
    from polyres.listen.design.webmushra import import_webmushra
    from polyres.listen.design.webmushra_texts import read_config

    folder = out or Path(recipe.stem)
    if "pages" in read_config(recipe, lambda line: None):
        if settings:
            raise ConfigError("--set changes recipes, not webMUSHRA configs; edit the file")
        study = import_webmushra(recipe, folder, root, _tell, pad)
    else:
        if pad:
            raise ConfigError("--pad is for webMUSHRA configs; excerpts of a recipe are cut to one length already")
        parsed = StudyRecipe.from_yaml(recipe, settings or [])
        study = build_study(parsed.resolved(recipe.parent), folder, _tell)
    _tell_study(study, folder, as_json)


def _tell_study(study: ListenStudy, folder: Path, as_json: bool) -> None:
    kinds = ", ".join(part.kind for part in study.singles())
    facts = {
        "study": str(folder),
        "kind": kinds,
        "conditions": [condition.label for condition in study.conditions],
        "pages": len(study.pages),
        "training_pages": len(study.training),
    }
    text = f"{folder}: {kinds}, {len(study.pages)} pages of {len(study.conditions)} conditions"
    typer.echo(json.dumps(facts) if as_json else f"{text}\nnext: polyres listen serve {folder}")


def serve(
    study: StudyDir,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes any that is free.")] = 8765,
    root_path: Annotated[str, typer.Option(help="Path under which a proxy shows the server, such as /listen.")] = "",
    public_url: Annotated[str, typer.Option(help="What links begin with, such as https://lab.example/listen.")] = "",
    database: Annotated[
        str | None, typer.Option(help="SQLAlchemy URL, such as postgresql://…; SQLite in the study's folder.")
    ] = None,
    admin_token: Annotated[
        str | None,
        typer.Option(envvar="POLYRES_ADMIN_TOKEN", help="At least 16 characters; made and kept with the study."),
    ] = None,
    invited_only: Annotated[bool, typer.Option("--invited-only", help="Only listeners with a link may join.")] = False,
    proxy: Annotated[str, typer.Option(help="Proxies that are believed, comma-separated.")] = "127.0.0.1",
    allow_origin: Annotated[list[str] | None, typer.Option(help="Further origins that may send answers.")] = None,
) -> None:
    """Serve a study to listeners until interrupted; every answer is stored at once."""
    try:
        from polyres.listen.server.app import run
        from polyres.listen.server.state import ServerOptions
    except ModuleNotFoundError as error:
        raise ConfigError(f"the server needs {error.name}; install it with pip install 'polyres[listen]'") from error
    options = ServerOptions(
        host=host,
        port=port,
        root_path=root_path,
        proxy_addresses=proxy,
        allowed_origins=tuple(allow_origin or ()),
        public_url=public_url,
        database_url=database,
        admin_token=admin_token,
        open_enrolment=not invited_only,
    )

    def announce(listeners: str, admin: str) -> None:
        typer.echo(f"listeners: {listeners}\nadministrator: {admin}\nstop with Ctrl-C")

    run(study, options, announce)


def score(
    study: StudyDir,
    metrics: Annotated[
        str, typer.Option(help="Comma-separated; all that a reference and one sound are enough for.")
    ] = "",
    out: Annotated[Path | None, typer.Option("--out", help="File to write; STUDY/scores.jsonl.")] = None,
) -> None:
    """Measure the excerpts themselves: every system on every page against the page's reference.

    Metrics of polyres evaluate are of whole songs; these are of what is heard. Give the file to analyse --metrics.
    A sound that cannot be measured is told, all others are written, and the status is 2.
    """
    from polyres.listen.analysis.metrics_against_ratings import SCORES_NAME, score_excerpts, write_scores
    from polyres.listen.design.files import load_study

    names = [name.strip() for name in metrics.split(",") if name.strip()]
    rows, problems = score_excerpts(load_study(study, complete=False), study, names, _tell)
    for line in problems:
        _tell(f"not scored: {line}")
    typer.echo(f"{write_scores(rows, out or study / SCORES_NAME)}: {len(rows)} scores")
    if problems:
        raise typer.Exit(2)


def analyse(
    study: StudyDir,
    ratings: Annotated[
        list[str] | None,
        typer.Option(
            "--ratings",
            metavar="SOURCE",
            help="File (.csv, .json, .jsonl, .parquet, SQLite) or URL of a database; repeatable. By default the "
            "study's own database, or simulated ratings where nobody has listened yet.",
        ),
    ] = None,
    metrics: Annotated[
        Path | None,
        typer.Option(help="scores.jsonl of polyres listen score or polyres evaluate, to correlate with the ratings."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the report; STUDY/report.")] = None,
    seed: Seed = 0,
    resamples: Annotated[int, typer.Option(min=100, help="Of the bootstrap.")] = 5000,
    figures: Annotated[bool, typer.Option(help="Draw figures.")] = True,
    as_json: AsJson = False,
) -> None:
    """Analyse the ratings of a study and write report.md, report.html, report.json and figures.

    Screening by BS.1534, with and without exclusion; intervals over listeners and excerpts; mixed models; Wilcoxon,
    permutation and t-tests with Holm's correction; for abx exact binomial tests, for ab Bradley–Terry strengths.
    A study of several kinds gets a report for each.
    A file of ratings that cannot be used is told, the others are analysed, and the status is 2.
    """
    from polyres.listen.analysis.analyse import analyse as run
    from polyres.listen.analysis.metrics_against_ratings import read_metric_rows
    from polyres.listen.analysis.report import write_report
    from polyres.listen.design.files import load_study
    from polyres.listen.store.database import ratings_by_part, ratings_of

    loaded = load_study(study)
    rows = read_metric_rows(metrics) if metrics is not None else None
    found, bad = ratings_of(loaded, study, ratings or (), _tell)
    analyses = [
        run(part, given, rows, seed=seed, resamples=resamples) for part, given in ratings_by_part(loaded, found)
    ]
    folder = out or study / REPORT_FOLDER
    for analysis in analyses:
        paths = write_report(analysis, folder / analysis.study.name if loaded.parts else folder, figures)
        if not as_json:
            _print_short(analysis.study, analysis)
            typer.echo(f"\n{paths[1]}")
    if as_json:
        plain = [analysis.to_dict() for analysis in analyses]
        typer.echo(json.dumps({"parts": plain} if loaded.parts else plain[0]))
    if bad:
        raise typer.Exit(2)


def _tell(line: str) -> None:
    typer.echo(line, err=True)


def _print_short(study: ListenStudy, analysis: Analysis) -> None:
    from polyres.listen.analysis.report import short_sections

    simulated = f", {analysis.simulated} of them SIMULATED" if analysis.simulated else ""
    typer.echo(f"{study.title}: {analysis.listeners} listeners{simulated}, {analysis.ratings} answers")
    for section in short_sections(analysis):
        typer.echo(f"\n{section.title}\n")
        typer.echo("\n".join(table.markdown() for table in section.tables[:2]), nl=False)


def export(
    study: StudyDir,
    out: Annotated[
        Path, typer.Option("--out", help="File to write (.csv, .json, .jsonl, .parquet), or a folder for all tables.")
    ],
    table: Annotated[
        str, typer.Option(help="For a file: ratings, listeners, answers (of the questionnaire) or events.")
    ] = "ratings",
    formats: Annotated[
        list[str] | None, typer.Option("--format", help="For a folder: csv, json, jsonl, parquet; repeatable.")
    ] = None,
    training: Annotated[bool, typer.Option("--training", help="With the ratings of training pages.")] = False,
    ratings: Ratings = None,
) -> None:
    """Write what was answered: ratings with labels, times and durations, listeners with consent and checks, answers.

    A folder gets every table and COLUMNS.md, which explains the columns. Nothing of it holds links, tokens, completion
    codes or what a recruiting site calls a listener; those are on the administrator's page alone.
    """
    from polyres.listen.design.files import load_study
    from polyres.listen.store.database import ratings_of
    from polyres.listen.store.export import COLUMNS, FORMATS, export_rows, write_table, write_tables

    one_file = out.suffix.lower().removeprefix(".") in FORMATS
    if out.suffix and not one_file and not out.is_dir():
        raise ConfigError(f"{out.name} has no known ending; choose .{', .'.join(FORMATS)}, or a folder for all tables")
    if table not in COLUMNS:
        raise ConfigError(f"there is no table {table!r}; choose {', '.join(COLUMNS)}")
    loaded = load_study(study)
    tables = _stored_tables(loaded, study, ratings, training)
    if tables is None:
        tables = {"ratings": export_rows(loaded, ratings_of(loaded, study, [ratings] if ratings else (), _tell)[0])}
    if not one_file:
        files = write_tables(tables, out, formats or ["csv"])
        typer.echo(f"{out}: {', '.join(f'{len(rows)} {name}' for name, rows in tables.items())}, {len(files)} files")
        return
    if table not in tables:
        raise InputError(f"files of ratings hold no {table}; leave out --ratings, or give the database of the study")
    typer.echo(f"{write_table(table, tables[table], out)}: {len(tables[table])} {table}")


def _stored_tables(
    study: ListenStudy, folder: Path, source: str | None, training: bool
) -> dict[str, list[dict[str, Any]]] | None:
    """Return all tables where they come from a database that somebody has answered into, else None."""
    from polyres.listen.analysis.ratings import database_url_of

    url = None
    if source is not None and Path(source).is_dir():
        folder = Path(source)
    elif source is not None and (url := database_url_of(source)) is None:
        return None
    try:
        from polyres.listen.store.database import opened_store
        from polyres.listen.store.export import stored_tables

        with opened_store(folder, url) as store:
            tables = stored_tables(study, store, training)
    except (InputError, ModuleNotFoundError):
        return None
    return tables if any(tables.values()) else None


def simulate(
    study: StudyDir,
    listeners: Annotated[int, typer.Option(min=1, help="How many careful listeners.")] = 12,
    careless: Annotated[int, typer.Option(min=0, help="How many more who answer at random.")] = 0,
    effects: Annotated[
        str, typer.Option(help="True scores of 100: 'htdemucs=70,polyres=78' or 'quality:htdemucs=70'.")
    ] = "",
    seed: Seed = 0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="noise_sd=7, listener_sd=5 …; repeatable.")
    ] = None,
) -> None:
    """Let listeners who do not exist take the test, to try out the study and its analysis.

    Their ratings go into STUDY/simulated_ratings.jsonl, never into the database, and every report calls them simulated.
    """
    from polyres.core.yaml_files import parse_override
    from polyres.listen.analysis.simulate import SimulateOptions, write_simulated
    from polyres.listen.analysis.simulate import simulate as run
    from polyres.listen.design.files import load_study

    loaded = load_study(study)
    options = SimulateOptions(listeners=listeners, careless=careless, seed=seed, effects=_effects(effects))
    for setting in settings or []:
        keys, value = parse_override(setting)
        options = options.with_values({".".join(keys): value})
    ratings = run(loaded, options)
    typer.echo(f"{write_simulated(ratings, study)}: {len(ratings)} SIMULATED ratings")


def _effects(text: str) -> dict[str, float]:
    effects = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        label, mark, value = part.rpartition("=")
        try:
            effects[label.strip()] = float(value)
        except ValueError:
            mark = ""
        if not mark or not label.strip():
            raise ConfigError(f"effect {part!r} cannot be read; write label=score, such as htdemucs=70")
    return effects


def power(
    difference: Annotated[float, typer.Option(min=0.01, help="True difference of two systems, in points.")] = 5.0,
    items: Annotated[int, typer.Option(min=1, help="Excerpts that a listener rates.")] = 8,
    listener_sd: Annotated[float, typer.Option(min=0.0, help="How listeners differ about one system.")] = 5.0,
    noise_sd: Annotated[float, typer.Option(min=0.01, help="Of a single rating.")] = 10.0,
    comparisons: Annotated[int, typer.Option(min=1, help="Pairs of systems that are tested.")] = 1,
    alpha: Annotated[float, typer.Option(min=0.0001, max=0.5, help="Level of the test.")] = 0.05,
    fewest: Annotated[int, typer.Option(min=2, help="Smallest number of listeners.")] = 10,
    most: Annotated[int, typer.Option(min=2, help="Largest.")] = 20,
    abx_share: Annotated[
        float | None, typer.Option(min=0.5, max=1.0, help="ABX instead: true share of right answers.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say how many listeners it takes to show a difference: chance of success, and what 80 % can detect.

    With --abx-share, items are the answers of each listener and all answers are tested together.
    """
    from polyres.core.tables import Rows, Table, number
    from polyres.listen.analysis.simulate import PowerOptions, abx_power, power_lines

    if abx_share is not None:
        chances = [(count, abx_power(abx_share, count * items, alpha)) for count in range(fewest, most + 1)]
        if as_json:
            typer.echo(json.dumps([{"listeners": count, "power": chance} for count, chance in chances]))
        else:
            abx_rows: Rows = [(str(count), str(count * items), f"{100 * chance:.0f} %") for count, chance in chances]
            typer.echo(Table("", ("listeners", "answers", "power"), abx_rows, 0).markdown(), nl=False)
        return
    options = PowerOptions(
        difference=difference,
        items=items,
        listener_sd=listener_sd,
        noise_sd=noise_sd,
        comparisons=comparisons,
        alpha=alpha,
    )
    lines = power_lines(options, fewest, most)
    if as_json:
        typer.echo(json.dumps([asdict(line) for line in lines]))
        return
    header = ("listeners", f"power for {difference:g} points", "detected by 80 %, points")
    rows: Rows = [(str(line.listeners), f"{100 * line.power:.0f} %", number(line.detectable, 1)) for line in lines]
    typer.echo(Table("", header, rows, 0).markdown(), nl=False)
