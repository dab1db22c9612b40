"""Claims that costs decide."""

from __future__ import annotations

from typing import Any

import pytest

from polyres.study.claims.base import FAILS, HOLDS, NOT_RUN, UNDECIDED, Judged, Material, judge
from polyres.study.claims.costs import COST_CLAIMS

BRANCHES = ("branches.0 (n_fft 2048)", "branches.1 (n_fft 4096)")


def entry(macs: float, parameters: int, branch: float, transformer: float, passes: tuple[float, ...]) -> dict[str, Any]:
    parts = [*({"name": name, "macs": branch} for name in BRANCHES), {"name": "transformer", "macs": transformer}]
    speed = {"latencies_s": passes, "latency_s": sorted(passes)[1], "hardware": "a chip", "threads": 1}
    return {"cost": {"macs": macs, "parameters": parameters, "parts": parts}, "speed": speed}


def verdicts(entries: dict[str, Any]) -> dict[str, Judged]:
    return {one.claim.key: one for one in judge(COST_CLAIMS, Material(complexity=entries))}


def test_counts_decide() -> None:
    entries = {
        "htdemucs_48": entry(120e9, 27, 40e9, 60e9, (2.0, 2.1, 2.2)),
        "htdemucs_24": entry(40e9, 7, 10e9, 24e9, (1.0, 1.0, 1.0)),
        "n": entry(50e9, 9, 10e9, 9e9, (1.0, 1.1, 1.2)),
        "w5": entry(64e9, 9, 10e9, 9e9, (1.5, 1.9, 2.05)),
        "2nn": entry(48e9, 15, 5e9, 9e9, (1.0, 1.1, 1.2)),
    }
    found = verdicts(entries)
    wanted = {
        "half_width_fewer_macs": HOLDS,
        "half_width_faster": UNDECIDED,  # one pass of w5 was slower than one of the baseline
        "multi_has_more_parameters": FAILS,
        "half_width_saves_75_percent": HOLDS,
        "five_branches_are_125_percent": HOLDS,
        "ours_30_to_50_gflops": FAILS,  # w5
        "linear_transformer_cheaper": HOLDS,
        "standard_hop_dearer": FAILS,
        "linear_transformer_faster": NOT_RUN,
    }
    assert {key: found[key].verdict for key in wanted} == wanted
    assert found["half_width_saves_75_percent"].evidence[0].value == pytest.approx(75)
    assert [row.value for row in found["half_width_fewer_macs"].evidence] == pytest.approx([50 / 120, 64 / 120, 0.4])


def test_without_counts_nothing_is_decided() -> None:
    found = verdicts({})
    assert found["half_width_fewer_macs"].verdict == NOT_RUN
    assert found["half_width_fewer_macs"].claim.command() == "polyres complexity all --out complexity"
