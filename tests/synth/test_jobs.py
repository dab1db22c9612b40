from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from polyres.core.errors import InputError, OutputError
from polyres.synth.instruments.render import SAMPLE_RATE_HZ, read_manifest
from polyres.synth.jobs import Made, Totals, run_jobs, seeds


@dataclass(frozen=True)
class Noise:
    """A job that writes noise, or does what its number says."""

    folder: Path
    number: int = 0
    made_from: str = "noise"

    def make(self) -> tuple[dict[str, np.ndarray], dict[str, object]]:
        if self.number == 77:
            raise InputError("seventy-seven")
        if self.number == 66:
            os._exit(1)
        rng = np.random.default_rng(self.number)
        wave = rng.uniform(-0.5, 0.5, (2, SAMPLE_RATE_HZ // 10 * (1 + self.number))).astype(np.float32)
        return {"drums": wave, "bass": -wave}, {"number": self.number}


def test_jobs_come_out_in_order_and_the_same_from_any_number_of_processes(tmp_path: Path) -> None:
    told: list[str] = []
    for processes in (1, 3):
        jobs = [Noise(tmp_path / str(processes) / f"n{number}", number) for number in range(4)]
        made = run_jobs(jobs, processes, lambda one: told.append(one.name))
        assert [one.name for one in made] == ["n0", "n1", "n2", "n3"]
        assert [one.length_s for one in made] == pytest.approx([0.1, 0.2, 0.3, 0.4])
        assert all(one.stems == ("drums", "bass") and not one.skipped and one.cpu_s >= 0.0 for one in made)
    assert sorted(told) == sorted(2 * ["n0", "n1", "n2", "n3"])
    for path in (tmp_path / "1").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "3" / path.relative_to(tmp_path / "1")).read_bytes()
    manifest = read_manifest(tmp_path / "3" / "n2")
    assert manifest == {"number": 2, "stems": ["drums", "bass"], "length_s": 0.3, "made_from": "noise"}


def test_finished_tracks_are_left_alone_and_others_refused(tmp_path: Path) -> None:
    run_jobs([Noise(tmp_path / "a")])
    before = (tmp_path / "a" / "drums.wav").stat().st_mtime_ns
    made = run_jobs([Noise(tmp_path / "a"), Noise(tmp_path / "b", 1)])
    assert [(one.skipped, one.length_s) for one in made] == [(True, pytest.approx(0.1)), (False, pytest.approx(0.2))]
    assert (tmp_path / "a" / "drums.wav").stat().st_mtime_ns == before
    with pytest.raises(OutputError, match=r"'.*a' was made with another seed or other options; choose another folder"):
        run_jobs([Noise(tmp_path / "a", made_from="something else")])
    manifest = tmp_path / "a" / "manifest.json"
    manifest.write_text(json.dumps({"length_s": 2.0}))  # as older versions wrote it
    assert run_jobs([Noise(tmp_path / "a", made_from="anything")]) == [Made("a", 2.0, (), 0.0, True)]


@pytest.mark.parametrize("processes", [1, 2])
def test_errors_of_a_job_arrive(tmp_path: Path, processes: int) -> None:
    jobs = [Noise(tmp_path / f"n{number}", number) for number in (77, 1, 2, 3)]
    with pytest.raises(InputError, match="seventy-seven"):
        run_jobs(jobs, processes)
    assert not list(tmp_path.glob(".*"))


def test_a_dying_worker_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="a worker process died, perhaps for want of memory; go on with fewer --jobs"):
        run_jobs([Noise(tmp_path / "a", 66), Noise(tmp_path / "b", 66)], 2)


def test_totals_add_up() -> None:
    totals = Totals()
    assert totals.hours_per_cpu_hour is None
    totals.add(Made("a", 1800.0, ("drums", "bass"), 60.0))
    totals.add(Made("b", 3600.0, ("drums",), 0.0, True))
    assert totals.to_dict() == {
        "tracks_made": 1,
        "tracks_there_before": 1,
        "hours_made": 0.5,
        "hours": 1.5,
        "cpu_hours": pytest.approx(1 / 60, abs=1e-5),
        "hours_per_cpu_hour": 30.0,
        "stems": {"bass": {"tracks": 1, "hours": 0.5}, "drums": {"tracks": 2, "hours": 1.5}},
    }


def test_purposes_and_numbers_have_generators_of_their_own() -> None:
    drawn = {
        (seed, number, name): rng.random()
        for seed in (0, 1)
        for number in (0, 1)
        for name, rng in seeds(seed, number, {"a": 1, "b": 2}).items()
    }
    assert len(set(drawn.values())) == len(drawn) == 8
    assert seeds(0, 1, {"b": 2})["b"].random() == drawn[0, 1, "b"]
