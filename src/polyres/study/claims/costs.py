"""Claims about costs: decided by the counts and times of `polyres complexity`, and by those of studies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from polyres.study.claims.base import (
    FAILS,
    HALF_WIDTH,
    HOLDS,
    UNDECIDED,
    Claim,
    Evidence,
    Material,
    Pairs,
    Test,
    both,
    cost_test,
)
from polyres.study.claims.settings import HOP, transformers

COMMAND = "polyres complexity all --out complexity"
SINGLE, FAMILY = "htdemucs_48", ("n", "nf", "w5", "nn", "2nn")
GIGA = 1e9
Entry = Mapping[str, Any]


def _macs(entry: Entry) -> float:
    return float(entry["cost"]["macs"])


def _parameters(entry: Entry) -> float:
    return float(entry["cost"]["parameters"])


def _part(name: str) -> Callable[[Entry], float]:
    """Return the MACs of the part of a model whose name ends so."""
    return lambda entry: sum(float(part["macs"]) for part in entry["cost"]["parts"] if name in part["name"])


def less(pairs: Sequence[tuple[str, str]], cost: Callable[[Entry], float], what: str) -> Test:
    """Return a test that the first model of every pair costs less than the second."""

    def test(material: Material) -> list[Evidence]:
        rows = []
        for first, second in pairs:
            one, other = (material.complexity.get(name) for name in (first, second))
            if one is not None and other is not None:
                ratio = cost(one) / cost(other)
                rows.append(Evidence(f"{what}: {first} / {second}", HOLDS if ratio < 1 else FAILS, ratio, unit="×"))
        return rows

    return test


def _faster(material: Material) -> list[Evidence]:
    """Compare times of separating; passes that overlap decide nothing."""
    rows = []
    base = (material.complexity.get(SINGLE) or {}).get("speed")
    for name in FAMILY:
        speed = (material.complexity.get(name) or {}).get("speed")
        if not speed or not base:
            continue
        ours, theirs = speed["latencies_s"], base["latencies_s"]
        apart = HOLDS if max(ours) < min(theirs) else FAILS if min(ours) > max(theirs) else UNDECIDED
        notes = f"median of {len(ours)} passes on {speed['hardware']}, {speed['threads']} threads"
        ratio = speed["latency_s"] / base["latency_s"]
        rows.append(Evidence(f"time: {name} / {SINGLE}", apart, ratio, unit="×", notes=notes, size="full size, CPU"))
    return rows


def _numbers(values: Sequence[tuple[str, Callable[[Mapping[str, Entry]], float], float, float, str]]) -> Test:
    """Return a test that numbers lie between two ends."""

    def test(material: Material) -> list[Evidence]:
        rows = []
        for what, number, low, high, unit in values:
            try:
                found = number(material.complexity)
            except KeyError:
                continue
            notes = f"stated: {low:g} to {high:g}"
            rows.append(Evidence(what, HOLDS if low <= found <= high else FAILS, found, unit=unit, notes=notes))
        return rows

    return test


def _per_cent(part: str, of: str, factor: float = 100.0) -> Callable[[Mapping[str, Entry]], float]:
    """Return a branch of n_fft 4096 of one model in per cent of that of another."""
    return lambda entries: factor * _part("n_fft 4096")(entries[part]) / _part("n_fft 4096")(entries[of])


def _giga(name: str) -> Callable[[Mapping[str, Entry]], float]:
    return lambda entries: _macs(entries[name]) / GIGA


NARROW = [(name, SINGLE) for name in FAMILY]
# fmt: off
COST_CLAIMS: tuple[Claim, ...] = (
    Claim("half_width_fewer_macs", "notes 0; draft 4.2 (3), 6.2",
          "With half the channels (24), several resolutions take fewer multiply-accumulates than one of 48.", COMMAND,
          both(less(NARROW, _macs, "MACs"), cost_test(HALF_WIDTH, "macs_per_s", "MACs per second of audio")), COMMAND),
    Claim("half_width_faster", "notes 0", "With half the channels, several resolutions separate faster than one.",
          COMMAND, both(_faster, cost_test(HALF_WIDTH, "separate_s", "time of separating")), COMMAND),
    Claim("multi_has_more_parameters", "notes 0.5, performance gap",
          "With half the channels, several resolutions have more parameters than one.", COMMAND,
          less([(SINGLE, name) for name in FAMILY], _parameters, "parameters"), COMMAND),
    Claim("half_width_saves_75_percent", "draft 6.2 (1)", "Half the channels save about 75 % of a branch.", COMMAND,
          _numbers([("100 % − branch of 24 / branch of 48 channels", lambda entries: 100 - _per_cent("n",
          SINGLE)(entries), 71.25, 78.75, "%")]), COMMAND),
    Claim("five_branches_are_125_percent", "draft 6.2 (2)",
          "Five branches of a quarter each are 125 % of one of 48 channels.", COMMAND,
          _numbers([("five branches of 24 / one of 48 channels", _per_cent("w5", SINGLE, 500.0), 118.75, 131.25, "%")]),
          COMMAND),
    Claim("ours_30_to_50_gflops", "draft 6.3",
          "Our models take 30 to 50 GFLOPs (for one segment of 7.8 s, a multiplication and addition counted once).",
          COMMAND,
          _numbers([(name, _giga(name), 30, 50, "GMAC") for name in FAMILY]), COMMAND),
    Claim("bs_roformer_100_to_200_gflops", "draft 6.3", "BS-RoFormer takes 100 to 200 GFLOPs and reaches 9.0 dB.",
          "its authors' model", lambda material: [], lacks=True),
    Claim("linear_transformer_cheaper", "notes 0",
          "A linear transformer takes fewer multiply-accumulates than a softmax one.", COMMAND, both(less([("n",
          "htdemucs_24")], _part("transformer"), "MACs of the transformer, equal grid and width"),
          cost_test(transformers("linear", "softmax"), "macs_per_s", "MACs per second of audio")), COMMAND),
    Claim("linear_transformer_faster", "notes 0", "A linear transformer separates markedly faster.",
          "arms that differ in transformer.kind only: linear and softmax",
          cost_test(transformers("linear", "softmax"), "separate_s", "time of separating"), "transformer"),
    Claim("standard_hop_dearer", "notes, compared models (2nn)", "A hop of n_fft / 2 costs more than n_fft / 4.",
          COMMAND, both(less([("n", "2nn")], _part("n_fft 2048"),
          "MACs of the branch of 2048, n_fft / 4 against n_fft / 2"), cost_test(Pairs(HOP.second, HOP.first, HOP.may),
          "macs_per_s", "MACs per second of audio")), COMMAND),
)
# fmt: on
