from __future__ import annotations

import importlib
import os
import time
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("soundfile")
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("busy")


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="needs the process table of Linux")
def test_loops_use_processors_and_end(busy: ModuleType) -> None:
    with busy.busy_loops(1) as (pid,):
        time.sleep(0.1)
        ticks = sum(map(int, Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[11:13]))
    assert ticks > 0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_process_costs_what_it_computes_and_hears_only_what_it_is_told(
    busy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    code = (
        "import os, time; assert 'OMP_NUM_THREADS' not in os.environ and os.environ['OMP_WAIT_POLICY'] == 'ACTIVE'\n"
        "time.sleep(0.2)\nwhile time.process_time() < 0.2: pass"
    )
    cost = busy.whole_process(["-c", code], {"OMP_WAIT_POLICY": "ACTIVE"})
    assert cost.wall_s >= 0.38
    assert 0.2 <= cost.processor_s < cost.wall_s
    with pytest.raises(RuntimeError, match="ended with 3"):
        busy.whole_process(["-c", "raise SystemExit(3)"], {})


def test_the_first_file_is_waited_for(busy: ModuleType, tmp_path: Path) -> None:
    code = f"import time; open({str(tmp_path / 'a.wav')!r}, 'w').close(); time.sleep(0.4)"
    start = time.perf_counter()
    cost = busy.whole_process(["-c", code], {}, until=tmp_path)
    assert cost.wall_s < time.perf_counter() - start - 0.3
    with pytest.raises(RuntimeError, match="before its first file"):
        busy.whole_process(["-c", ""], {}, until=tmp_path / "empty")


def test_the_table_divides(busy: ModuleType) -> None:
    cost = busy.Cost
    costs = {
        "separate, passive": (cost(2, 3), cost(4, 3)),
        "separate, active": (cost(2, 4), cost(10, 30)),
        "bss_eval, mono, 5 s": (cost(1, 1), cost(2, 1)),
        "museval 0.4.1, mono, 5 s": (cost(25, 40), cost(44, 42)),
    }
    lines = busy.report(costs, 2, 0.04).splitlines()
    assert lines[0].startswith("2 busy loops on ")
    assert lines[0].endswith("load before: 0.0")
    assert lines[4] == "| separate, passive | 2.00 | 3.00 | 4.00 | 3.00 | 2.00 | 1.00 |"
    assert lines[8:] == [
        "| active ÷ passive | 1.00 | 1.33 | 2.50 | 10.00 | | |",
        "| museval 0.4.1, mono ÷ bss_eval, mono | 25.00 | 40.00 | 22.00 | 42.00 | | |",
    ]
