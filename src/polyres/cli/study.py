"""`polyres study`: arms times seeds, trained, scored and compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polyres.cli.shared.terminal import examples
from polyres.core.errors import ConfigError

if TYPE_CHECKING:
    from polyres.separation.training.task import TrainConfig
    from polyres.study.plan.arms import Plan, Request
    from polyres.study.run.processes import Backend

EPILOG = examples(
    "polyres study recipes/studies — the studies of a folder, each with its question",
    "polyres study recipes/studies/debug.yaml — two tiny models, two seeds each, in a minute; needs no data",
    "polyres study recipes/studies/main_cpu.yaml --data DATA --dry-run — what would run, and whether all is there",
    "polyres study studies/debug — the tables of a study again",
)
STUDIES_FOLDER = "studies"
RAY_THREADS = 4
"""Processors of a job on a cluster where its recipe does not say."""


def study(
    recipe: Annotated[
        Path,
        typer.Argument(metavar="STUDY", help="Study file (YAML); the folder of a study; or a folder of study files."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help=f"Folder of the study; {STUDIES_FOLDER}/NAME by default.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time; they share the processors.")] = 1,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Run on a Ray cluster (HOST:PORT or auto) that shares --out and --data."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", envvar="POLYRES_DATA", help="Folder that roots to train and score on are relative to."),
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="In place of those of the study file: 1,2,3.")] = None,
    arms: Annotated[str | None, typer.Option(help="Run only these arms, comma-separated.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a value in the recipe of every arm; study.KEY=VALUE changes the study file. Repeatable.",
        ),
    ] = None,
    listing: Annotated[
        bool, typer.Option("--list", help="Show the arms, or the studies of a folder, and end.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check recipes, models and data, show what would run, and end.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print tables as Markdown.")] = False,
) -> None:
    """Train every arm of a study with every seed, score all, and compare them.

    Runs that are done are left alone, and one that was stopped goes on where it was: give the same command again.
    One that fails does not stop the others; the exit status is then 1, and its log says why.

    OUT gets study.json, rows.jsonl (every score), costs.jsonl, report.md and, in runs/, the folder of every run.
    """
    from polyres.study.plan.arms import make_plan
    from polyres.study.run.files import STUDY_FILE

    if recipe.is_dir():
        if (recipe / STUDY_FILE).is_file():
            _report(recipe, as_json, markdown)
        else:
            _list_studies(recipe, as_json)
        return
    request = _request(data, seeds, arms, overrides or [])
    plan = make_plan(recipe, request)
    folder = out or Path(STUDIES_FOLDER) / plan.study.name
    if listing or dry_run:
        _show_plan(plan, folder, dry_run, as_json)
        return
    _carry_out(plan, folder, _backend(plan, jobs, ray), as_json, markdown)


def _request(data: str | None, seeds: str | None, arms: str | None, overrides: list[str]) -> Request:
    """Read what was asked for beside the study file."""
    from polyres.study.plan.arms import Request

    try:
        numbers = None if seeds is None else tuple(int(word) for word in seeds.split(","))
    except ValueError as error:
        raise ConfigError(f"--seeds {seeds} are no numbers; write them as 1,2,3") from error
    names = tuple(word.strip() for word in (arms or "").split(",") if word.strip()) or None
    return Request(data, numbers, names, tuple(overrides))


def _backend(plan: Plan, jobs: int, ray: str | None) -> Backend:
    """Return where the runs are done."""
    if ray is not None:
        from polyres.study.run.processes import RayBackend

        return RayBackend(ray, max(run.config.threads or RAY_THREADS for run in plan.runs))
    from polyres.study.run.processes import LocalBackend

    return LocalBackend(jobs)


def _count_macs(config: TrainConfig) -> float:
    """Count the multiply-accumulates per second of audio of a recipe's model."""
    import torch

    from polyres.separation.complexity.counts import cost_of
    from polyres.separation.model import Separator

    model = Separator(config.model).eval()
    length = model.segment_samples
    return cost_of(model, torch.zeros(1, model.audio_channels, length)).macs / (length / model.sample_rate_hz)


def _carry_out(plan: Plan, folder: Path, backend: Backend, as_json: bool, markdown: bool) -> None:
    """Do what is not yet done, and print what came out."""
    from polyres.study.run.run import exit_status, run_study
    from polyres.study.run.state import open_folder

    plan = open_folder(plan, folder)
    _say(f"{plan.study.title}: {len(plan.runs)} runs in {folder}")
    result = run_study(plan, folder, backend, _say, _count_macs)
    for failure in result.failures:
        _say(f"failed: {failure.run} (exit status {failure.status}): {failure.reason}; all it said: {failure.log}")
    if result.done:
        _report(folder, as_json, markdown)
    if result.stopped_by is not None:
        _say("stopped; give the same command again to go on")
    if exit_status(result):
        raise typer.Exit(exit_status(result))


def _report(folder: Path, as_json: bool, markdown: bool) -> None:
    """Print the tables of a study, and leave them in its folder."""
    from polyres.cli.shared.study_report import report_json, report_tables
    from polyres.cli.shared.terminal import print_tables
    from polyres.core.whole_files import write_whole

    tables = report_tables(folder)
    write_whole(folder / "report.md", "\n".join(table.markdown() for table in tables))
    if as_json:
        typer.echo(json.dumps(report_json(folder), indent=2))
    else:
        print_tables(tables, markdown)


def _list_studies(folder: Path, as_json: bool) -> None:
    """Show the studies of a folder."""
    from polyres.cli.shared.study_report import studies_table
    from polyres.cli.shared.terminal import print_tables
    from polyres.study.plan.config import StudyConfig, find_studies

    paths = find_studies(folder)
    if not paths:
        raise ConfigError(f"'{folder}' holds neither a study (study.json) nor study files (*.yaml)")
    studies = [(path, StudyConfig.from_yaml(path)) for path in paths]
    if as_json:
        typer.echo(json.dumps({path.stem: config.to_dict() for path, config in studies}, indent=2))
    else:
        print_tables([studies_table(studies)], markdown=False)


def _show_plan(plan: Plan, folder: Path, check: bool, as_json: bool) -> None:
    """Show the runs of a study; with a check of models and data, which are the same for all seeds of an arm."""
    from polyres.cli.shared.study_report import plan_json, plan_tables
    from polyres.cli.shared.terminal import print_tables
    from polyres.study.plan.arms import check_run

    first = {arm: next(run for run in plan.runs if run.arm == arm) for arm in dict.fromkeys(r.arm for r in plan.runs)}
    checked = {arm: check_run(plan.config.data, run) for arm, run in first.items()} if check else None
    if as_json:
        typer.echo(json.dumps(plan_json(plan, folder, checked), indent=2))
    else:
        print_tables(plan_tables(plan, folder, checked), markdown=False)


def _say(line: str) -> None:
    typer.echo(line, err=True)
