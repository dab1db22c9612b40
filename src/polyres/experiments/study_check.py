"""What can be found wrong with a study before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from polyres.core.errors import TrainingError
from polyres.data.layouts import find_tracks
from polyres.data.synth.made import is_made
from polyres.experiments.study_config import StudyDataConfig
from polyres.experiments.study_plan import Run
from polyres.models.separator import Separator
from polyres.training.separation import resolve_roots


def check_run(data: StudyDataConfig, run: Run) -> int:
    """Build the model of a run, and look for the tracks that it trains, validates and is scored on.

    Roots that are to be made are taken to be there.

    Args:
        data: what is scored on.
        run: of the study.

    Returns:
        Number of parameters.

    Raises:
        TrainingError: if a folder is not there.
        InputError: if a folder has no tracks.
        ConfigError: if the model cannot be built.
    """
    config = run.config
    try:
        model = Separator(config.model)
        for root in config.data.roots:
            _look(root.path, config.data_dir, root.layout, root.split, config.model.sources)
        for path in config.valid.roots:
            _look(path, config.data_dir, config.valid.layout, config.valid.split, config.model.sources)
        for path in data.roots.values():
            _look(path, config.data_dir, data.layout, data.split, config.model.sources)
    except TrainingError as error:
        raise TrainingError(f"arm {run.arm}: {error}") from error
    return sum(parameter.numel() for parameter in model.parameters())


def _look(root: str, data_dir: str | None, layout: str, split: str, sources: Iterable[str]) -> None:
    """Look for tracks in a folder."""
    if not is_made(root):
        (folder,) = resolve_roots((root,), data_dir)
        find_tracks(Path(folder), layout, split, tuple(sources))
