"""What claims are judged by, wherever it lies: studies, costs of models, listening tests, codec benchmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polyres.core.errors import InputError
from polyres.core.json_text import json_file
from polyres.study.claims.base import Material
from polyres.study.paper.data import read_lines, read_studies
from polyres.study.paper.weights import read_reports
from polyres.study.run.files import STUDY_FILE

KINDS = {"complexity": "cost", "listening": "simulated_listeners", "enhancers": "enhancer", "front_ends": "mel_bins"}
"""Parts of `Material`, and the key by which their files are known."""


def read_material(paths: Sequence[Path]) -> Material:
    """Read evidence.

    Args:
        paths: folders of studies, and files or folders of `polyres complexity --out`, `polyres listen analyse` and of
            the benchmarks of enhancers and front ends.

    Raises:
        AnalysisError: when a study cannot be used.
        InputError: when there is no evidence in one of them, or it cannot be read.
    """
    folders = [path for path in paths if (path / STUDY_FILE).is_file()]
    found: dict[str, list[Any]] = {kind: [] for kind in KINDS}
    for path in (path for path in paths if path not in folders):
        rows = _rows(path)
        if not rows:
            raise InputError(
                f"'{path}' holds no study ({STUDY_FILE} is missing) and no other evidence; give the --out of "
                "polyres study, or what polyres complexity or polyres listen analyse wrote"
            )
        for kind, row in rows:
            found[kind].append(row)
    studies = read_studies(folders)
    counts = {row["model"]: row for row in found.pop("complexity")}
    return Material(studies, read_reports(studies), counts, found["listening"], found["enhancers"], found["front_ends"])


def _rows(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the pieces of evidence in a file, or in those of a folder, each with its kind."""
    files = sorted(path.glob("*.json*")) if path.is_dir() else [path]
    found = []
    for file in files:
        try:
            values = read_lines(file) if file.suffix == ".jsonl" else json_file(file)
        except (OSError, ValueError) as error:
            raise InputError(f"'{file}' cannot be read ({error}); give a file that polyres wrote") from error
        for row in values if isinstance(values, list) else [values]:
            kinds = [kind for kind, key in KINDS.items() if isinstance(row, Mapping) and key in row]
            found += [(kind, row) for kind in kinds[:1]]
    return found
