"""Measuring a model: figures, fresh processes, failures."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch

from polyres.core.errors import AnalysisError, ConfigError
from polyres.separation.complexity import measure as module
from polyres.separation.complexity.counts import cost_of
from polyres.separation.complexity.measure import (
    Complexity,
    Request,
    kinds_table,
    main,
    measure,
    measure_apart,
    memory_mib,
    parts_table,
    summary_table,
)
from polyres.separation.weights import save_separator
from tests.separation.fusion_report.runs import RATE_HZ, small

pytestmark = pytest.mark.slow  # two processes are started, or a large model is measured


@pytest.fixture(scope="module")
def request_of_small(tmp_path_factory: pytest.TempPathFactory) -> Request:
    path = save_separator(small(), tmp_path_factory.mktemp("models") / "small.safetensors", dtype="fp32")
    return Request(str(path), seconds=0.5, device="cpu", repeats=3)


@pytest.fixture(scope="module")
def apart(request_of_small: Request) -> Complexity:
    return measure_apart(request_of_small)


def test_a_fresh_process_tells_what_this_one_counts(request_of_small: Request, apart: Complexity) -> None:
    here = measure(replace(request_of_small, repeats=0))
    assert here.speed is None
    assert apart.cost == here.cost == cost_of(small(), torch.zeros(1, 2, RATE_HZ // 2))
    assert apart.audio_s == 0.5
    assert apart.macs_per_second == 2 * apart.cost.macs
    assert apart.n_fft == ((512, 1024, 2048),)


def test_speed_and_memory(apart: Complexity) -> None:
    speed = apart.speed
    assert speed is not None
    assert speed.device == "cpu"
    assert speed.precision == "fp32"
    assert len(speed.latencies_s) == 3
    assert speed.latency_s == sorted(speed.latencies_s)[1]
    assert speed.real_time_factor == pytest.approx(speed.latency_s / 0.5)
    assert speed.hardware
    assert speed.memory_mib is not None
    assert speed.peak_memory_mib is not None
    assert 50 < speed.memory_mib <= speed.peak_memory_mib < 4000


def test_the_warm_up_is_not_counted(request_of_small: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 100.0, 200.0, 201.0, 300.0, 303.0, 400.0, 402.0])
    monkeypatch.setattr("polyres.separation.complexity.measure.time.perf_counter", lambda: next(clock))
    speed = measure(request_of_small).speed
    assert speed is not None
    assert speed.latencies_s == (1.0, 3.0, 2.0)
    assert speed.latency_s == 2.0
    assert speed.real_time_factor == 4.0


def test_the_peak_is_that_of_this_process_alone() -> None:
    before = memory_mib(torch.device("cpu"))
    ballast = torch.ones(64 * 2**20 // 4 * 8)  # 512 MiB
    after = memory_mib(torch.device("cpu"))
    assert before is not None
    assert after is not None
    assert float(ballast[0]) == 1
    assert after >= 512


def test_results_survive_json(apart: Complexity) -> None:
    assert Complexity.from_dict(json.loads(json.dumps(apart.to_dict()))) == apart


def test_tables(apart: Complexity) -> None:
    counted = replace(apart, speed=None)
    summary = summary_table([apart, counted])
    assert {len(row) for row in summary.rows} == {len(summary.header)}
    assert summary.rows[0][1] == "512 1024 2048"
    assert summary.rows[0][2] == f"{apart.cost.parameters:,}".replace(",", " ")
    assert summary.rows[1][-3:] == ("–", "–", "–")
    assert "1.25 n log2 n" in summary.notes[0]
    assert len(summary.notes) == 2
    assert "median of 3 warm passes" in summary.notes[1]
    parts = parts_table(apart)
    assert sum(float(row[-1]) for row in parts.rows) == pytest.approx(100, abs=0.3)
    assert kinds_table([apart]).header[1:] == tuple(apart.cost.by_kind)


def test_no_audio(request_of_small: Request) -> None:
    with pytest.raises(AnalysisError, match=r"--seconds 0 is no audio; give more than 0, such as 7.8"):
        measure(replace(request_of_small, seconds=0.0))


def test_too_little_memory(request_of_small: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(module, "cost_of", explode)
    with pytest.raises(AnalysisError, match=r"does not fit into the memory of cpu; give fewer --seconds or another"):
        measure(replace(request_of_small, repeats=0))


def test_an_absent_device(request_of_small: Request) -> None:
    with pytest.raises(ConfigError, match=r"device cuda:99 is not available here"):
        measure(replace(request_of_small, device="cuda:99"))


def test_errors_of_the_process_come_back(
    request_of_small: Request, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main(json.dumps(asdict(replace(request_of_small, seconds=0.0))))
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"error": "--seconds 0 is no audio; give more than 0, such as 7.8"}

    def answer(text: str) -> None:
        done = subprocess.CompletedProcess([], -9, stdout=text)
        monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)

    answer(printed)
    with pytest.raises(AnalysisError, match=r"^--seconds 0 is no audio"):
        measure_apart(request_of_small)
    answer("")
    with pytest.raises(AnalysisError, match=r"ended with status -9; the memory may be too small: give fewer --seconds"):
        measure_apart(request_of_small)


def test_threads_are_those_asked_for(request_of_small: Request) -> None:
    before = torch.get_num_threads()
    try:
        speed = measure(replace(request_of_small, threads=2, repeats=1)).speed
    finally:
        torch.set_num_threads(before)
    assert speed is not None
    assert speed.threads == 2
