"""Statements of the notes that arithmetic decides: no study is needed."""

from __future__ import annotations

from collections.abc import Callable

from polyres.nn.fusion.base import FusionConfig
from polyres.separation.variants import FIVE
from polyres.study.claims.base import FAILS, HOLDS, Claim, Evidence
from polyres.study.paper.weights import Material

RATE_HZ = 44100
STEMS, CHANNELS = 4, 2
TAPS = FusionConfig().taps


def _fact(key: str, place: str, statement: str, claimed: float, found: float, unit: str, why: str) -> Claim:
    """Return a claim on a number, to the digits in which it is stated."""
    verdict = HOLDS if abs(found - claimed) <= 0.05 * abs(claimed) else FAILS

    def test(material: Material) -> list[Evidence]:
        return [Evidence(f"{why} (stated: {claimed:g})", verdict, found, unit=unit, notes="arithmetic")]

    return Claim(key, place, statement, "nothing", test)


def _verdict(key: str, place: str, statement: str, verdict: str, why: str) -> Claim:
    test: Callable[[Material], list[Evidence]] = lambda material: [Evidence(why, verdict, notes="arithmetic")]  # noqa: E731
    return Claim(key, place, statement, "nothing", test)


# fmt: off
FACT_CLAIMS: tuple[Claim, ...] = (
    _fact("8192_is_5_8_ms", "notes, why 8192", "8192 samples are a window of 5.8 ms.",
          5.8, 1e3 * 8192 / RATE_HZ, "ms", "8192 / 44 100 Hz"),
    _fact("16384_is_11_6_ms", "notes, why 16384", "16384 samples are a window of 11.6 ms.",
          11.6, 1e3 * 16384 / RATE_HZ, "ms", "16384 / 44 100 Hz"),
    _fact("2048_is_46_ms", "draft 6.1", "2048 samples are 46 ms.", 46, 1e3 * 2048 / RATE_HZ, "ms", "2048 / 44 100 Hz"),
    _fact("8192_is_5_4_hz", "draft 6.1; notes", "8192 samples tell 5.4 Hz apart.",
          5.4, RATE_HZ / 8192, "Hz", "44 100 Hz / 8192"),
    _fact("1024_is_43_hz", "notes", "1024 samples tell 43 Hz apart.", 43, RATE_HZ / 1024, "Hz", "44 100 Hz / 1024"),
    _verdict("2048_covers_10_to_22_khz", "draft 4.3", "2048 covers 10 to 22 kHz.", FAILS,
             f"Every transform covers 0 to {RATE_HZ / 2:g} Hz; n_fft sets the spacing, not the range."),
    _verdict("half_hop_is_finer", "notes, 2nn", "A hop of n_fft / 2 gives finer time resolution than n_fft / 4.", FAILS,
             "It gives half as many frames: coarser in time, and cheaper."),
    _fact("conv_spans_129_frames", "notes 0.7", "The output convolution sees 129 frames of time.",
          129 * 1e3 * 1024 / RATE_HZ, 1e3 * TAPS / RATE_HZ, "ms",
          "129 samples / 44 100 Hz, against 129 frames of 1024 samples"),
    _fact("conv_has_5k_parameters", "draft 5.3; notes 0.7", "The output convolution has about 5 000 parameters.",
          5000, STEMS * CHANNELS * len(FIVE) * TAPS, "1", "stems × channels × resolutions × taps, depthwise"),
    _fact("weights_have_5_parameters", "draft 1.4, 3.2", "Weighted fusion of five resolutions has five parameters.",
          5, len(FIVE), "1", "one per resolution"),
    _fact("26_percent_is_far_from_even", "draft 0, 4.3", "26 % is a leading share of five.",
          26, 100 / len(FIVE), "%", "an even share of five resolutions"),
    _fact("configuration_a_is_whole", "notes, configuration A", "Weights 26.1, 18.1 and 23.5 % are all of one model.",
          100, 26.1 + 18.1 + 23.5, "%", "26.1 + 18.1 + 23.5"),
)
# fmt: on
