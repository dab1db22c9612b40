"""Claims: what holds, what fails, what cannot be said."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from polyres.study.claims.base import (
    ARITHMETIC,
    FAILS,
    HOLDS,
    LACKS,
    NOT_RUN,
    UNDECIDED,
    Evidence,
    Judged,
    Material,
    Rule,
    combine,
    judge,
)
from polyres.study.claims.contrasts import Contrast, doubts
from polyres.study.claims.text import claims_json, claims_markdown
from polyres.study.paper.data import read_paper_study
from polyres.study.paper.weights import read_reports
from polyres.study.paper.write import CLAIMS
from tests.study.studies import Made, MadeArm, write_made

THREE = {"n_fft": [2048, 4096, 8192]}
WIDE = {"channels": 8}


def verdicts(folder: Path, made: Made) -> dict[str, Judged]:
    study = read_paper_study(write_made(folder, made))
    return {one.claim.key: one for one in judge(CLAIMS, Material([study], read_reports([study])))}


def contrast_of(low: float, high: float) -> Contrast:
    """The 90 % interval is four fifths as wide."""
    middle, reach = (low + high) / 2, 0.4 * (high - low)
    return Contrast(middle, low, high, 9, 3, "nsdr", "dB", (middle - reach, middle + reach))


@pytest.mark.parametrize(
    ("rule", "interval", "wanted"),
    [
        (Rule("above"), (0.1, 0.3), HOLDS),
        (Rule("above"), (-0.1, 0.3), UNDECIDED),
        (Rule("above"), (-0.3, -0.1), FAILS),
        (Rule("above", 0.1), (0.05, 0.3), UNDECIDED),
        (Rule("below", 0.2), (-0.1, 0.1), HOLDS),
        (Rule("below", 0.2), (0.25, 0.3), FAILS),
        (Rule("within", 0.1), (-0.05, 0.09), HOLDS),
        (Rule("within", 0.1), (-0.105, 0.09), HOLDS),  # two one-sided tests at 5 %
        (Rule("within", 0.1), (-0.15, 0.09), UNDECIDED),
        (Rule("within", 0.1), (-0.5, 0.5), UNDECIDED),  # no difference is seen, and none is shown to be absent
        (Rule("within", 0.1), (-0.05, 0.2), UNDECIDED),
        (Rule("within", 0.1), (0.15, 0.2), FAILS),
        (Rule("no_worse", 0.1), (-0.05, 0.5), HOLDS),
        (Rule("no_worse", 0.1), (-0.5, -0.01), UNDECIDED),
        (Rule("no_worse", 0.1), (-0.5, -0.11), FAILS),
        (Rule("no_worse", 0.1), (-0.5, 0.5), UNDECIDED),
        (Rule("above"), (float("nan"), float("nan")), UNDECIDED),
    ],
)
def test_rules(rule: Rule, interval: tuple[float, float], wanted: str) -> None:
    assert rule.verdict(contrast_of(*interval)) == wanted


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ([], None),
        ([HOLDS, HOLDS], HOLDS),
        ([HOLDS, UNDECIDED], UNDECIDED),
        ([HOLDS, UNDECIDED, FAILS], FAILS),
    ],
)
def test_a_claim_is_about_all_its_rows(rows: Sequence[str], wanted: str | None) -> None:
    assert combine(rows) == wanted


def test_one_decibel_better_on_every_track_holds(tmp_path: Path) -> None:
    found = verdicts(tmp_path, Made([MadeArm("one"), MadeArm("three", THREE, gain=1.0)]))
    claim = found["multi_beats_single"]
    assert claim.verdict == HOLDS
    row = claim.evidence[0]
    assert (row.value, row.low, row.high, row.tracks) == (pytest.approx(1), pytest.approx(1), pytest.approx(1), 8)
    assert row.study == "made"
    assert row.runs == ("three/seed1", "three/seed2", "three/seed3", "one/seed1", "one/seed2", "one/seed3")
    assert row.size == claim.sizes() == "4 channels, 1000 steps, 8 songs"
    assert "three − one (equal steps)" in row.what
    assert row.notes == "interval above 0 dB; they differ in n_fft"
    assert found["half_width_beats_single"].verdict == NOT_RUN
    assert found["drums_and_bass_gain_most"].verdict == UNDECIDED  # all stems gain alike: the interval is zero
    assert found["unet_fails"].verdict == NOT_RUN


def test_one_decibel_worse_fails(tmp_path: Path) -> None:
    found = verdicts(tmp_path, Made([MadeArm("one"), MadeArm("three", THREE, gain=-1.0)]))
    assert found["multi_beats_single"].verdict == FAILS


def test_few_tracks_decide_nothing(tmp_path: Path) -> None:
    found = verdicts(tmp_path, Made([MadeArm("one"), MadeArm("three", THREE, gain=1.0)], tracks=5))
    assert found["multi_beats_single"].verdict == UNDECIDED
    assert "fewer than 6 tracks" in found["multi_beats_single"].evidence[0].notes


def test_seeds_that_disagree_decide_nothing(tmp_path: Path) -> None:
    arms = [MadeArm("one"), MadeArm("three", THREE, gain=0.1, wobble=1.0)]
    assert verdicts(tmp_path, Made(arms))["multi_beats_single"].verdict == UNDECIDED


LEADS = {**THREE, "output": {"kind": "weights", "favour_n_fft": 8192}}


@pytest.mark.parametrize(
    ("study", "reason"),
    [
        (Made((), seeds=(1,), steps=1), "fewer than 3 seeds; one: 1 steps, fewer than 1000, and too few to be flat"),
        (Made((), seeds=(1, 2)), "fewer than 3 seeds"),
        (Made((), tracks=5), "fewer than 6 tracks"),
        (Made((), steps=999), "one: 999 steps, fewer than 1000, and there is no learning curve"),
        (Made((), share=None), "no scores of silence (give the command of the study again)"),
        (Made((), share=5.0), "one is not surely above an equal share of the mixture (-2.00, -2.00 to -2.00)"),
    ],
)
def test_what_is_in_doubt_decides_nothing_but_arithmetic(tmp_path: Path, study: Made, reason: str) -> None:
    once = study.steps == 1  # reading weights takes seconds
    arms = [
        MadeArm("one", WIDE, macs_per_s=2e9),
        MadeArm("three", LEADS, 1.0, {"drums": 1}, parts={f"without {n}": 1.0 for n in THREE["n_fft"]}, weights=once),
        MadeArm("conv", _fusion("conv"), gain=1.2, weights=once),
    ]
    found = verdicts(tmp_path, replace(study, arms=arms))
    judged = [row for one in found.values() for row in one.evidence if row.size != ARITHMETIC and row.unit != "×"]
    assert {row.verdict for row in judged} == {UNDECIDED}
    assert len(judged) > (20 if once else 12)
    assert any(reason in row.notes for row in judged)


def test_a_short_run_counts_once_its_curve_is_flat(tmp_path: Path) -> None:
    rises, flat = [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 2.45, 2.5]
    for scores, wanted in ((rises, "and its validation score still rises"), (flat, None)):
        folder = write_made(tmp_path / str(wanted), Made([MadeArm("one")], steps=200))
        for seed in (1, 2, 3):
            rows = [{"step": 50 * (n + 1), "valid": {"raw": {"score": score}}} for n, score in enumerate(scores)]
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / "runs" / "one" / f"seed{seed}" / "metrics.jsonl").write_text(lines)
        study = read_paper_study(folder)
        found = doubts(study, study.arms[0])
        assert found == (() if wanted is None else (f"one: 200 steps, fewer than 1000, {wanted}",))


def test_half_the_width(tmp_path: Path) -> None:
    gains = {"drums": 1.0, "bass": 0.5, "vocals": -0.04}
    arms = [MadeArm("one", WIDE, macs_per_s=2e9), MadeArm("three", THREE, gains=gains)]
    found = verdicts(tmp_path, Made(arms))
    assert found["half_width_costs_nothing"].verdict == HOLDS
    assert found["half_width_beats_single"].verdict == FAILS  # vocals lose a little on every track
    assert found["half_width_scores_lower"].verdict == FAILS
    assert found["vocals_unchanged"].verdict == HOLDS
    assert found["drums_and_bass_gain_most"].verdict == HOLDS
    macs = found["half_width_fewer_macs"]
    assert (macs.verdict, macs.evidence[0].value) == (HOLDS, 0.5)
    assert found["half_width_faster"].verdict == NOT_RUN
    assert found["multi_beats_single"].verdict == NOT_RUN


def test_arms_that_differ_in_more_are_not_compared(tmp_path: Path) -> None:
    arms = [MadeArm("one"), MadeArm("three", {**THREE, "norm_starts": 4}, gain=1.0)]
    assert verdicts(tmp_path / "model", Made(arms))["multi_beats_single"].verdict == NOT_RUN
    arms = [MadeArm("one"), MadeArm("three", THREE, gain=1.0, recipe={"batch_size": 8})]
    assert verdicts(tmp_path / "recipe", Made(arms))["multi_beats_single"].verdict == NOT_RUN


def test_times_decide_whether_other_lengths_compare(tmp_path: Path) -> None:
    arms = [MadeArm("one"), MadeArm("three", THREE, gain=1.0, recipe={"epochs": 4})]
    row = verdicts(tmp_path, Made(arms))["multi_beats_single"].evidence[0]
    assert "equal time" in row.what


def _fusion(kind: str, more: dict[str, Any] | None = None) -> dict[str, Any]:
    return {**THREE, "output": {"kind": kind, **(more or {})}}


def test_fusions(tmp_path: Path) -> None:
    arms = [
        MadeArm("weights", _fusion("weights")),
        MadeArm("source", _fusion("source_weights"), gain=-0.2),
        MadeArm("conv", _fusion("conv"), gain=0.15),
        MadeArm("unet", _fusion("unet"), gain=-1),
        MadeArm("notes", _fusion("unet_notes"), gain=0.5),
        MadeArm("mean", _fusion("mean"), gain=-0.3),
        MadeArm("favoured", _fusion("weights", {"favour_n_fft": 8192}), gain=-0.5),
    ]
    found = verdicts(tmp_path, Made(arms))
    assert found["conv_beats_weights"].verdict == HOLDS
    assert found["conv_gains_little"].verdict == FAILS  # 0.35 dB over weights per stem
    assert (found["unet_fails"].verdict, found["mended_unet_fails"].verdict) == (FAILS, HOLDS)
    assert found["weights_lose_0_1_to_0_2_db"].verdict == FAILS  # 0.15 and 0.35 dB
    assert found["source_weights_help"].verdict == FAILS
    assert found["learning_weights_helps"].verdict == HOLDS
    assert found["favoured_start_helps"].verdict == FAILS


def test_resolutions(tmp_path: Path) -> None:
    five = [1024, 2048, 4096, 8192, 16384]
    losses = {f"without {size}": loss for size, loss in zip(five, (0.1, 0.2, 0.9, 0.3, 0.1), strict=True)}
    arms = [
        MadeArm("two", {"n_fft": [2048, 8192]}),
        MadeArm("three", THREE, gain=1.0),
        MadeArm("five", {"n_fft": five}, gain=1.3, gains={"vocals": -0.8}, parts=losses),
        MadeArm("no 8192", {"n_fft": [1024, 2048, 4096, 16384]}, gain=1.05, gains={"vocals": -0.8}),
        MadeArm("no 1024", {"n_fft": [2048, 4096, 8192, 16384]}, gain=1.25, gains={"vocals": -0.8}),
    ]
    found = verdicts(tmp_path, Made(arms))
    wanted = {
        "five_beats_three": HOLDS,
        "five_hurts_vocals": HOLDS,
        "diminishing_returns": HOLDS,
        "1024_can_go": HOLDS,
        "8192_must_stay": HOLDS,
        "2048_most_critical": FAILS,
        "vocals_need_4096": HOLDS,
        "drums_need_2048": FAILS,
    }
    assert {key: found[key].verdict for key in wanted} == wanted
    assert len(found["2048_most_critical"].evidence) == 4


def test_settings(tmp_path: Path) -> None:
    base = {**THREE, "channels": 12}
    arms = [
        MadeArm("base", base, recipe={"optimiser": {"lr": 0.001}, "augment": {"chain": ["shift", "repitch"]}}),
        MadeArm("fast", base, 0.5, recipe={"optimiser": {"lr": 0.002}, "augment": {"chain": ["shift", "repitch"]}}),
        MadeArm("plain", base, -0.5, recipe={"optimiser": {"lr": 0.001}, "augment": {"chain": ["shift"]}}),
    ]
    found = verdicts(tmp_path / "recipes", Made(arms))
    assert found["higher_rate_helps"].verdict == HOLDS
    assert found["repitch_hurts"].verdict == FAILS
    arms = [
        MadeArm("base", base),
        MadeArm("hop", {**base, "hop_ratio": 2}, gain=0.2, macs_per_s=5e8),
        MadeArm("narrow", {**base, "channels": 8}, gain=-0.4),
        MadeArm("linear", {**base, "transformer": {"kind": "linear", "layers": 1}}, gain=0.3, macs_per_s=2e9),
    ]
    found = verdicts(tmp_path / "models", Made(arms))
    assert found["standard_hop_dearer"].verdict == FAILS
    assert found["linear_transformer_faster"].verdict == NOT_RUN
    assert found["standard_hop_better"].verdict == HOLDS
    assert found["narrower_is_worse"].verdict == HOLDS
    assert found["transformer_little_use"].verdict == FAILS
    assert found["norm_starts_no_matter"].verdict == NOT_RUN


def test_weights(tmp_path: Path) -> None:
    losses = {"without 2048": 0.5, "without 4096": 0.1, "without 8192": 0.2}
    leading = _fusion("weights", {"favour_n_fft": 8192})
    arms = [MadeArm("three", leading, parts=losses, weights=True), MadeArm("even", _fusion("mean"), weights=True)]
    found = verdicts(tmp_path, Made(arms))
    leads = found["8192_leads_three"]
    assert leads.verdict == HOLDS
    assert leads.evidence[0].value == pytest.approx(57.6, abs=0.1)  # softmax of 0 0 1
    assert "3 of 3 runs" in leads.evidence[0].notes
    assert found["8192_leads_three_by"].verdict == FAILS  # 38 % were stated
    assert found["weights_stay_even"].verdict == FAILS
    assert found["weights_are_importance"].verdict == FAILS  # 2048 is missed most, 8192 weighs most
    assert found["2048_leads_five"].verdict == NOT_RUN
    assert found["stems_weigh_differently"].verdict == NOT_RUN


def test_arithmetic_needs_no_study() -> None:
    found = {one.claim.key: one for one in judge(CLAIMS, Material())}
    decided = {key: one for key, one in found.items() if one.evidence}
    assert {one.claim.needs for one in decided.values()} == {"nothing: arithmetic"}
    wanted = {
        "2048_is_46_ms": HOLDS,
        "8192_is_5_8_ms": FAILS,
        "conv_has_5k_parameters": HOLDS,
        "nn_has_3_parameters": FAILS,
        "26_percent_is_largest": HOLDS,
        "26_percent_is_far_from_even": FAILS,
        "2048_first_or_second": FAILS,
        "spread_by_stage": FAILS,
        "cosine_mean_rate": FAILS,
        "5_7_becomes_95": FAILS,
        "so_the_vae_is_at_fault": FAILS,
        "upsampling_is_hop_160": HOLDS,
        "full_band_instead_of_8_khz": FAILS,
    }
    assert {key: decided[key].verdict for key in wanted} == wanted
    values = {"8192_is_5_8_ms": 185.76, "configuration_a_is_whole": 67.7, "entropy_is_98_4": 98.51}
    for key, value in values.items():
        assert decided[key].evidence[0].value == pytest.approx(value, abs=0.01)
    rest = {one.verdict for key, one in found.items() if key not in decided}
    assert rest == {NOT_RUN, LACKS}
    assert all(one.claim.command() for one in found.values() if one.verdict == NOT_RUN)


def test_the_page(tmp_path: Path) -> None:
    found = list(verdicts(tmp_path, Made([MadeArm("one"), MadeArm("three", THREE, gain=1.0)])).values())
    page = claims_markdown(found, ["made: a study"])
    assert "- made: a study" in page
    assert "+1.00 dB | +1.00 to +1.00" in page
    assert "made: three/seed1, three/seed2, three/seed3, one/seed1" in page
    assert "**holds** (4 channels, 1000 steps, 8 songs)" in page
    assert "**needs data or people we lack**: a blind listening test." in page
    assert "**not run**: `polyres study recipes/studies/cpu/transformer.yaml --data DATA`" in page
    values = json.loads(claims_json(found))
    assert [one["key"] for one in values["claims"]] == [one.key for one in CLAIMS]
    assert len({one.key for one in CLAIMS}) == len(CLAIMS)
    assert values["claims"][0]["evidence"][0]["verdict"] == HOLDS


def test_numbers_that_json_lacks_are_null() -> None:
    row = Evidence("x", UNDECIDED, 1.0, float("nan"), float("nan"))
    values = Judged(CLAIMS[0], UNDECIDED, (row,)).to_dict()
    assert (values["evidence"][0]["low"], values["evidence"][0]["value"]) == (None, 1.0)
