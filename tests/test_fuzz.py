"""Every way in, given files with random damage: success or one line of PolyresError, in bounded room and time."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.fuzzing import KINDS, ROOT, fuzz

QUICK = (
    "network",
    "checkpoint",
    "stages",
    "recipe",
    "moises",
    "slakh",
    "manifest",
    "rows",
    "run",
    "study",
    "wav",
    "flac",
)
PER_KIND = 2000 // len(KINDS) + 1


@pytest.mark.parametrize("kind", QUICK)
def test_a_few_damaged_files_of_every_quick_kind(kind: str) -> None:
    outcome = fuzz(kind, 9, seed=0)
    assert outcome.faults == []
    assert outcome.refused + outcome.read == 9


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_neither_crash_nor_hang_nor_ask_for_room(kind: str) -> None:
    command = [sys.executable, "-m", "tests.fuzzing", kind, str(PER_KIND), "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    outcome = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(outcome))
    assert outcome["faults"] == []
    assert outcome["refused"] + outcome["read"] == PER_KIND
    assert outcome["peak_mb"] < 256
