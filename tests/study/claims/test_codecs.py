"""Claims of the reports about AudioLDM2's autoencoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polyres.core.errors import InputError
from polyres.study.claims.base import FAILS, HOLDS, LACKS, NOT_RUN, UNDECIDED, Judged, Material, judge
from polyres.study.claims.codecs import CODEC_CLAIMS
from polyres.study.claims.scores import RESOLUTION_CLAIMS
from polyres.study.paper.evidence import read_material


def rows(codec: str, enhancer: str, strength: float, error: float, kept: float) -> list[dict[str, Any]]:
    spread = np.random.default_rng(0).normal(0, 0.1, 8)
    return [
        {
            "file": f"song {n}", "codec": codec, "enhancer": enhancer, "strength": strength, "informed": False,
            "scores": {"log_mel_l1_high": error + float(spread[n]) * strength, "retention_high": kept + n},
        }
        for n in range(8)
    ]  # fmt: skip


ENHANCERS = [
    *rows("mel", "codec", 0.0, 0.1, 80), *rows("mel, decibel front end", "codec", 0.0, 2.0, 900),
    *rows("mel", "frequency", 1.0, 0.9, 90), *rows("mel, decibel front end", "frequency", 1.0, 1.5, 950),
    *rows("mel", "noise", 1.0, 0.1, 80),
]  # fmt: skip


def verdicts(material: Material) -> dict[str, Judged]:
    return {one.claim.key: one for one in judge([*CODEC_CLAIMS, *RESOLUTION_CLAIMS], material)}


def test_enhancers_are_judged_file_by_file() -> None:
    found = verdicts(Material(enhancers=ENHANCERS))
    assert found["frequency_raises_energy"].verdict == HOLDS
    assert found["frequency_lowers_error"].verdict == FAILS  # with a sound front end
    row = found["frequency_lowers_error"].evidence[0]
    assert (row.tracks, row.size) == (8, "mel, 8 files of 4 s")
    assert row.value == pytest.approx(0.8, abs=0.1)
    assert found["noise_lowers_error"].verdict == UNDECIDED
    assert found["contrast_lowers_error"].verdict == NOT_RUN
    assert found["decibel_front_end"].verdict == HOLDS
    assert found["frequency_numbers"].verdict == LACKS


def listening(simulated: int, listeners: int, first: str) -> dict[str, Any]:
    tests = {"first": "c1", "second": "c2", "difference": 8.0, "low": 4.0, "high": 12.0, "listeners": listeners}
    block = {
        "attribute": "quality",
        "stem": "drums",
        "screened": True,
        "items": ["a", "b"],
        "pairs": [{"tests": tests}],
    }
    labels = {"c1": first, "c2": "w5" if first == "htdemucs_24" else "htdemucs_24"}
    return {"study": "ears", "simulated_listeners": simulated, "blocks": [block], "labels": labels}


@pytest.mark.parametrize(
    ("report", "wanted"),
    [
        (listening(0, 12, "n"), HOLDS),
        (listening(0, 12, "htdemucs_24"), FAILS),
        (listening(0, 9, "n"), UNDECIDED),
        (listening(12, 12, "n"), LACKS),  # simulated listeners have no ears
        (listening(0, 12, "somebody"), LACKS),
    ],
)
def test_ratings_of_listeners_are_read(report: dict[str, Any], wanted: str) -> None:
    assert verdicts(Material(listening=[report]))["listeners_prefer_multi"].verdict == wanted


def test_evidence_is_known_by_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "complexity.json").write_text(json.dumps([{"model": "n", "cost": {"macs": 1}}]))
    (tmp_path / "ratings").mkdir()
    (tmp_path / "ratings" / "report.json").write_text(json.dumps(listening(0, 12, "n")))
    (tmp_path / "ratings" / "scores.jsonl").write_text('{"metric": "sdr"}\n')
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ENHANCERS))
    found = read_material([tmp_path / "complexity.json", tmp_path / "ratings", tmp_path / "bench"])
    assert (list(found.complexity), len(found.listening), len(found.enhancers)) == (["n"], 1, len(ENHANCERS))
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "gone"):
        with pytest.raises(InputError, match=r"holds no study \(study.json is missing\)|cannot be read"):
            read_material([path])
