"""Statements of the notes that arithmetic decides: no study is needed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from polyres.nn.fusion.base import OUTPUT_FUSION, FusionConfig, FusionShape
from polyres.separation.model import MUSIC_SOURCES
from polyres.separation.variants import FIVE, SEVEN, THREE
from polyres.study.claims.base import FAILS, HOLDS, Claim, Evidence

RATE_HZ = 44100
STEMS, CHANNELS = len(MUSIC_SOURCES), 2
TAPS = FusionConfig().taps
TOLERANCE = 0.05
NOTHING = "nothing: arithmetic"

WEIGHTS_OF_FIVE = (13.7, 26.1, 18.1, 23.5, 18.6)
"""Weights in % that draft 4.3 gives for five resolutions."""
WEIGHTS_OF_THREE = (25.2, 34.4, 40.4)
FIRST, LAST = (14.3, 13.6, 13.5, 14.1, 15.4, 14.3, 14.9), (13.4, 12.1, 13.1, 13.7, 16.8, 15.3, 15.6)
"""Mean weights in % of seven resolutions after epochs 1 and 5, from the notes' table of 2nn."""
OF_SOURCES = {
    "drums": (15.3, 12.4, 12.5, 12.0, 21.0, 13.1, 13.8),
    "bass": (11.7, 13.9, 10.3, 9.6, 17.1, 20.1, 17.2),
    "other": (13.6, 11.7, 14.6, 16.8, 11.8, 14.7, 16.8),
    "vocals": (12.8, 10.6, 14.9, 16.2, 17.5, 13.2, 14.8),
}
"""The same per stem, epoch 5."""


def fact(key: str, place: str, statement: str, claimed: float, found: float, unit: str, why: str) -> Claim:
    """Return a claim on a number, which holds within 5 % of it."""
    holds = abs(found - claimed) <= TOLERANCE * abs(claimed)
    row = Evidence(f"{why} (stated: {claimed:g})", HOLDS if holds else FAILS, found, unit=unit)
    return Claim(key, place, statement, NOTHING, lambda material: [row])


def said(key: str, place: str, statement: str, holds: bool, why: str) -> Claim:
    """Return a claim that words and numbers of the notes themselves decide."""
    row = Evidence(why, HOLDS if holds else FAILS)
    return Claim(key, place, statement, NOTHING, lambda material: [row])


def entropy_percent(weights: Sequence[float]) -> float:
    """Entropy of weights in % of that of even ones."""
    shares = [weight / sum(weights) for weight in weights]
    return -100 * sum(share * math.log(share) for share in shares) / math.log(len(shares))


def _parameters(kind: str, n_fft: tuple[int, ...]) -> int:
    """Count the parameters of an output fusion of four stereo stems."""
    shape = FusionShape(n_fft, MUSIC_SOURCES, CHANNELS, RATE_HZ, False)
    fusion = OUTPUT_FUSION.build(kind, FusionConfig(kind=kind), shape)
    return sum(parameter.numel() for parameter in fusion.parameters())


def _cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


def _epoch_rates(epochs: int = 10, warmup: int = 2) -> list[float]:
    """Learning rates of the notes' schedule, in parts of the highest."""
    after = [max(0.01, _cosine((epoch - warmup) / (epochs - warmup))) for epoch in range(warmup, epochs)]
    return [(epoch + 1) / warmup for epoch in range(warmup)] + after


def _ms(samples: int) -> float:
    return 1e3 * samples / RATE_HZ


_LOW = [rate < 0.1 for rate in _epoch_rates()]
_CHANGES = [last - first for first, last in zip(FIRST, LAST, strict=True)]
# fmt: off
WINDOWS: tuple[Claim, ...] = (
    fact("8192_is_5_8_ms", "notes, why 8192", "8192 samples are a window of 5.8 ms.", 5.8, _ms(8192), "ms",
         "8192 / 44 100 Hz"),
    fact("16384_is_11_6_ms", "notes, why 16384",
         "16384 samples are a window of 11.6 ms, one or two periods of a bass.", 11.6, _ms(16384), "ms",
         "16384 / 44 100 Hz, 15 periods at 40 Hz"),
    fact("2048_is_46_ms", "draft 6.1", "2048 samples are 46 ms.", 46, _ms(2048), "ms", "2048 / 44 100 Hz"),
    fact("4096_is_93_ms", "draft 6.1, 6.4", "4096 samples are 93 ms.", 93, _ms(4096), "ms", "4096 / 44 100 Hz"),
    fact("4096_is_10_8_hz", "draft 6.1", "4096 samples tell 10.8 Hz apart.", 10.8, RATE_HZ / 4096, "Hz",
         "44 100 Hz / 4096"),
    fact("8192_is_5_4_hz", "draft 6.1; notes", "8192 samples tell 5.4 Hz apart.", 5.4, RATE_HZ / 8192, "Hz",
         "44 100 Hz / 8192"),
    fact("1024_is_43_hz", "notes", "1024 samples tell 43 Hz apart.", 43, RATE_HZ / 1024, "Hz", "44 100 Hz / 1024"),
    said("1024_cannot_tell_semitones", "notes, why 1024", "1024 samples cannot tell semitones (6 %) apart.", False,
         f"Below {RATE_HZ / 1024 / (2 ** (1 / 12) - 1):.0f} Hz a semitone is narrower than a bin, above it is wider."),
    fact("bass_periods_5_to_25_ms", "notes, why 16384", "Bass notes of 40 to 200 Hz have periods of 5 to 25 ms.", 25,
         1e3 / 40, "ms", "1 / 40 Hz; 1 / 200 Hz is 5 ms"),
    said("2048_covers_10_to_22_khz", "draft 4.3", "2048 covers 10 to 22 kHz.", False,
         f"Every transform covers 0 to {RATE_HZ / 2:g} Hz; n_fft sets the spacing, not the range."),
    said("n_fft_is_a_band", "notes 0.5, 1; draft 4.3",
         "1024 stands for very low frequencies, 2048 for 1 to 2 kHz, 16384 for very high ones.", False,
         "Each of them covers the same band; a longer window has finer bins and coarser time."),
    said("half_hop_is_finer", "notes, 2nn", "A hop of n_fft / 2 gives finer time resolution than n_fft / 4.", False,
         "It gives half as many frames: coarser in time, and cheaper."),
)
FUSIONS: tuple[Claim, ...] = (
    fact("conv_spans_129_frames", "notes 0.7", "The output convolution sees 129 frames of time.", _ms(129 * 1024),
         _ms(TAPS), "ms", "129 samples / 44 100 Hz, against 129 frames of 1024 samples"),
    fact("conv_has_5k_parameters", "draft 5.3; notes 0.7", "The output convolution has about 5 000 parameters.", 5000,
         _parameters("conv", FIVE), "1", "stems × channels × resolutions × taps, depthwise"),
    fact("weights_have_5_parameters", "draft 1.4, 3.2", "Weighted fusion of five resolutions has five parameters.", 5,
         _parameters("weights", FIVE), "1", "one per resolution"),
    fact("nn_has_3_parameters", "notes 0.7", "The output fusion of nn has as many parameters as resolutions (3).", 3,
         _parameters("source_weights", THREE), "1", "stems × resolutions, as each stem has its own weights"),
    fact("conv_has_1000_times", "notes 0.7", "The convolution has 1000 times the parameters of the weights.", 1000,
         _parameters("conv", FIVE) / _parameters("weights", FIVE), "×", "five resolutions"),
    said("unet_has_100k_parameters", "notes 0.6; draft 5.3",
         "TimeUNet2D, the notes' network (unet_notes), has 100 000 to 1 000 000 parameters.",
         1e5 <= _parameters("unet_notes", FIVE) <= 1e6, f"{_parameters('unet_notes', FIVE)} with its usual widths"),
    said("unet_has_20000_times", "notes 0.6", "It has 20 000 times the parameters of the weights, or more.",
         _parameters("unet_notes", FIVE) / _parameters("weights", FIVE) >= 20_000,
         f"{_parameters('unet_notes', FIVE) / 5:.0f} times"),
    said("conv_adapts_to_input", "notes 0.7", "The output convolution adapts to its input.", False,
         "Its kernels are fixed after training: it is linear and the same at all times. Only `gated` adapts."),
    said("features_72_and_120", "draft 3.3",
         "Three resolutions of 24 channels are 72 features, five are 120, one of 48 is 48.", True,
         "3 × 24 = 72, 5 × 24 = 120"),
)
TABLES: tuple[Claim, ...] = (
    said("26_percent_is_largest", "draft 0, 4.3", "26.1 % is the largest weight of the five.",
         max(WEIGHTS_OF_FIVE) == 26.1,
         f"the others: {', '.join(f'{weight:g}' for weight in sorted(WEIGHTS_OF_FIVE)[:-1])} %"),
    said("26_percent_is_far_from_even", "draft 0, 4.3",
         "Weights with 26.1 % for one of five say that it matters most: they are far from even.",
         entropy_percent(WEIGHTS_OF_FIVE) < 90,
         f"Even is 20 %; the five have {entropy_percent(WEIGHTS_OF_FIVE):.1f} % of the entropy of even weights."),
    fact("entropy_is_98_4", "draft 4.3; notes, convergence",
         "The weights' entropy is 98.4 to 98.5 % of that of even ones.", 98.45, entropy_percent(WEIGHTS_OF_FIVE), "%",
         f"five resolutions; of the three: {entropy_percent(WEIGHTS_OF_THREE):.1f} %"),
    said("2048_first_or_second", "draft 4.3 (1)",
         "2048 has the largest or second largest weight with three and with five resolutions.", False,
         "Of three it has 25.2 %, the smallest (34.4 and 40.4 % are the others)."),
    fact("configuration_a_is_whole", "notes, configuration A", "Weights 26.1, 18.1 and 23.5 % are all of one model.",
         100, sum(WEIGHTS_OF_FIVE[1:4]), "%", "26.1 + 18.1 + 23.5: three of the five"),
    fact("two_cover_49_6", "notes 1", "[2048, 8192] cover 49.6 % of the weight.", 49.6,
         WEIGHTS_OF_FIVE[1] + WEIGHTS_OF_FIVE[3], "%", "26.1 + 23.5"),
    fact("four_cover_86_3", "notes 1", "[2048 … 16384] cover 86.3 % of the weight.", 86.3, sum(WEIGHTS_OF_FIVE[1:]),
         "%", "26.1 + 18.1 + 23.5 + 18.6"),
    said("8192_highest_in_all", "notes, recommended wording", "8192 has the largest weight in all stems.",
         all(max(row) == row[SEVEN.index(8192)] for row in OF_SOURCES.values()),
         "Their own rows: bass 16384 20.1 % against 17.1, other 32768 16.8 % against 11.8."),
    fact("8192_mean_is_16_8", "notes, recommended wording", "8192 has 16.8 % on the mean of the stems.", 16.8,
         sum(row[SEVEN.index(8192)] for row in OF_SOURCES.values()) / STEMS, "%", "(21.0 + 17.1 + 11.8 + 17.5) / 4"),
    fact("spread_grows_2_5_times", "notes, evolution 2",
         "From epoch 1 to 5 the spread of the weights grows 2.5 times, from 1.9 to 4.7 points.", 2.5,
         (max(LAST) - min(LAST)) / (max(FIRST) - min(FIRST)), "×", "(16.8 − 12.1) / (15.4 − 13.5)"),
    said("spread_by_stage", "notes, evolution 5",
         "The first fusion is even (spread 1.9 points), the second is not (4.7): coarse, then fine.", False,
         "13.5 to 15.4 % are the weights of the second fusion after epoch 1 (their table); nothing is given of "
         "the first."),
    said("1024_falls_most", "notes, evolution 4", "Of seven resolutions 1024 loses most weight (−1.5 points).",
         min(_CHANGES) == _CHANGES[1], f"their table: {_CHANGES[1]:+.1f} points, the next {sorted(_CHANGES)[1]:+.1f}"),
    said("drums_grow_fastest", "notes, findings 3", "8192 in drums grows fastest (+3.5 points).", False,
         "Their own rows: 16384 in bass +5.3."),
    said("other_is_most_even", "notes, findings 3", "The weights of other are the most even of the stems.",
         max(OF_SOURCES, key=lambda name: entropy_percent(OF_SOURCES[name])) == "other",
         "entropy, % of even: " + ", ".join(f"{name} {entropy_percent(row):.2f}" for name, row in OF_SOURCES.items())),
    fact("long_windows_have_half", "notes, evolution 4",
         "8192, 16384 and 32768 have 47.7 % of the weight, nearly half.", 47.7, sum(LAST[4:]), "%",
         "16.8 + 15.3 + 15.6; an even share of three of seven is 42.9"),
    fact("wide_bottleneck_entropy", "notes, large span",
         "29.1, 34.6 and 36.3 % have 99.6 % of the entropy of even weights.", 99.6,
         entropy_percent((29.1, 34.6, 36.3)), "%", "from the three"),
)
TRAINING: tuple[Claim, ...] = (
    fact("cosine_mean_rate", "notes 2", "The mean rate of the cosine schedule is half of the highest.", 0.5,
         sum(_epoch_rates()) / 10, "×", "10 epochs, two of warm-up, from 1e-3 down to 1e-5; the cosine alone: 0.505"),
    fact("cosine_above_0_3", "notes 2", "60 to 70 % of the time the rate is above 0.3 of the highest.", 65,
         100 * math.acos(-0.4) / math.pi, "%", "(1 + cos πp) / 2 > 0.3 for p below"),
    said("cosine_low_at_the_end", "notes 2", "Rates below 0.1 are those of the last one or two epochs only.",
         1 <= sum(_LOW) <= 2 and not any(_LOW[:-2]), f"epochs below: {sum(_LOW)} of 10"),
    said("cosine_falls_late", "notes 2", "The rate falls slowly at first and fast at the end.", False,
         "A cosine is slow at both ends and fastest in the middle: 0.15 in the first quarter, 0.35 in each of "
         "the next two, 0.15 in the last."),
    said("weights_change_gradients_4_times", "notes 2",
         "weights=[1] and weights=[1, 1, 1, 1] differ four times in the size of gradients, not in their direction.",
         True, "A sum of four losses against their mean."),
    said("weights_want_another_rate", "notes 2", "So the learning rate has to be changed too.", False,
         "Adam divides gradients by their size: the steps are the same. Clipping by norm is what changes."),
    fact("four_models_cost_28", "notes, cost", "Four models of 3.5 hours at 2 yuan an hour cost 28 yuan.", 28,
         4 * 3.5 * 2, "yuan", "4 × 3.5 × 2"),
)
# fmt: on
FACT_CLAIMS = (*WINDOWS, *FUSIONS, *TABLES, *TRAINING)
