"""Peak memory does not grow with the length of the file."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "memory.py"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_hour_takes_no_more_memory_than_a_few_minutes() -> None:
    spec = importlib.util.spec_from_file_location("memory_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    short = script.measure(script.CHEAP, 3, 44100)
    long = script.measure(script.CHEAP, 60, 44100)
    # The stems of 60 minutes alone would be 4.7 GiB.
    assert long["peak_mib"] < short["peak_mib"] + 50
