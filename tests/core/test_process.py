from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import polyres
from polyres.core.process import CpuSettings, called_from_c, interruptible, tune_cpu, usable_processors

ALL = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine(root: Path, cgroup: str, files: dict[str, str], monkeypatch: pytest.MonkeyPatch, cores: int = 64) -> Path:
    """A root folder with control groups, on a machine of many cores."""
    if hasattr(os, "sched_getaffinity"):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    for name, text in {"proc/self/cgroup": cgroup, **{f"sys/fs/cgroup/{k}": v for k, v in files.items()}}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 64),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "175000 100000\n"}, 2),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}, 3),
        ("0::/a/b\n", {"a/b/cpu.max": "400000 100000\n", "a/cpu.max": "300000 100000\n"}, 3),
        ("0::/../other\n", {"cpu.max": "400000 100000\n"}, 4),
        ("0::/gone\n", {}, 64),
        ("0::/\n", {"cpu.max": "nonsense\n"}, 64),
        ("0::/\n", {"cpu.max": "100000 0\n"}, 64),
        ("7:memory:/\n4:cpu,cpuacct:/d\n0::/\n", {"cpu,cpuacct/d/cpu.cfs_quota_us": "500000\n",
                                                  "cpu,cpuacct/d/cpu.cfs_period_us": "100000\n"}, 5),
        ("4:cpu:/docker/x\n", {"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "50000\n"}, 5),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
    ],
)  # fmt: skip
def test_quotas_of_control_groups_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cgroup: str, files: dict[str, str], expected: int
) -> None:
    assert usable_processors(machine(tmp_path, cgroup, files, monkeypatch)) == expected


def test_the_affinity_mask_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_processors(machine(tmp_path, "0::/\n", {"cpu.max": "800000 100000"}, monkeypatch, cores=3)) == 3
    assert usable_processors(tmp_path / "no such system") == 3


@pytest.mark.parametrize(
    ("environment", "threads", "expected", "left"),
    [
        ({}, None, CpuSettings(ALL, "too late"), {"OMP_NUM_THREADS": str(ALL)}),
        (
            {"OMP_WAIT_POLICY": "ACTIVE"},
            1,
            CpuSettings(1, "given"),
            {"OMP_WAIT_POLICY": "ACTIVE", "OMP_NUM_THREADS": "1"},
        ),
        ({"OMP_NUM_THREADS": "3,2"}, None, CpuSettings(3, "too late"), {"OMP_NUM_THREADS": "3,2"}),
        ({"MKL_NUM_THREADS": "5"}, None, CpuSettings(5, "too late"), {"MKL_NUM_THREADS": "5"}),
    ],
)
def test_what_the_user_set_stays(
    environment: dict[str, str], threads: int | None, expected: CpuSettings, left: dict[str, str]
) -> None:
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    try:
        assert tune_cpu(threads, environment) == expected
        assert torch.get_num_threads() == expected.threads
    finally:
        torch.set_num_threads(before)
    assert environment == left


def test_no_threads_are_refused() -> None:
    with pytest.raises(ValueError, match="threads is 0; it must be 1 or more"):
        polyres.tune_cpu(0)


@pytest.mark.parametrize(
    ("given", "expected"), [({}, "PASSIVE 2 passive"), ({"OMP_WAIT_POLICY": "active"}, "active 2 given")]
)
def test_a_new_process_computes_as_it_is_told(given: dict[str, str], expected: str) -> None:
    code = (
        "import os, polyres; settings = polyres.tune_cpu(2); import torch; "
        "print(os.environ['OMP_WAIT_POLICY'], torch.get_num_threads(), settings.waiting)"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    done = subprocess.run([sys.executable, "-c", code], env=kept | given, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator of another C library")
def test_freed_memory_is_used_again() -> None:
    code = (
        "import resource, sys\n"
        "if 'keep' in sys.argv: import polyres; polyres.tune_cpu(1)\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "bytearray(4 << 20); before = faults()\n"
        "for _ in range(50): blocks = [bytearray(4 << 20) for _ in range(5)]; del blocks\n"
        "print(faults() - before)"
    )
    counts = [
        int(subprocess.run([sys.executable, "-c", code, *words], capture_output=True, check=True).stdout)
        for words in ([], ["keep"])
    ]
    assert counts[1] < 10_000 < counts[0]  # a page has 4 KiB, and each round takes 5120 of them


NUMBERS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def interrupts_count() -> Iterator[None]:
    """Hear SIGINT as a shell in the foreground has it: in the background it is ignored from the start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def dropped_by_c(function: object) -> None:
    """Call a function as C libraries do: what it raises is lost."""
    try:
        function()  # type: ignore[operator]
    except BaseException:
        return


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_in_a_callback_comes_after_it(number: signal.Signals) -> None:
    steps = []

    @called_from_c
    def callback() -> None:
        signal.raise_signal(number)
        steps.append("whole")

    def work() -> None:
        with interruptible(*NUMBERS):
            dropped_by_c(callback)
            for _ in range(500):
                time.sleep(0.01)
            steps.append("lost")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == ["whole"]


def test_handlers_are_put_back_and_what_is_ignored_stays_ignored() -> None:
    kept = [signal.getsignal(number) for number in NUMBERS]
    with interruptible(*NUMBERS):
        assert all(signal.getsignal(n) is not old for n, old in zip(NUMBERS, kept, strict=True))
    assert [signal.getsignal(number) for number in NUMBERS] == kept
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible(*NUMBERS):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
