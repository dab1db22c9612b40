"""Claims of the three reports about AudioLDM2's autoencoder: reconstruction, enhancers of latents, and the plan."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from polyres.metrics.aggregate import MIN_TRACKS
from polyres.metrics.hierarchical import resample
from polyres.study.claims.base import FAILS, HOLDS, UNDECIDED, Claim, Evidence, Material, Test
from polyres.study.claims.facts import fact, said

LADDER = "polyres ladder SONGS --codec audioldm2 --out ladder"
ENHANCERS = "python benchmarks/enhancers.py SONGS --tune SONG --codec polyres_mel --decibel --out enhancers"
FRONT_ENDS = "python benchmarks/front_ends.py SONGS --data DATA --out front_ends"
WEIGHTS = "AudioLDM2's weights and the songs of the reports"
BASELINE, ENHANCED, PLAN, NOISE = (
    "enhancement report, step 1",
    "enhancement report, step 2",
    "improvement plan",
    "noise analysis",
)
BEHIND = ", decibel front end"
HIGH_ERROR, HIGH_KEPT = "log_mel_l1_high", "retention_high"


def _differences(rows: Sequence[Mapping[str, Any]], enhancer: str, score: str) -> dict[str, np.ndarray]:
    """Return per codec the scores of an enhancer at strength 1 less those of the codec alone, `[1, files]`."""
    found = {}
    for codec in dict.fromkeys(row["codec"] for row in rows):
        ours = [row for row in rows if row["codec"] == codec and not row["informed"]]
        alone = {row["file"]: row["scores"][score] for row in ours if row["enhancer"] == "codec"}
        with_it = {
            row["file"]: row["scores"][score] for row in ours if (row["enhancer"], row["strength"]) == (enhancer, 1.0)
        }
        if with_it:
            found[codec] = np.array([[with_it[file] - alone[file] for file in with_it]])
    return found


def _enhancer(name: str, score: str, sign: int, unit: str) -> Test:
    """Return a test that an enhancer raises (1) or lowers (−1) a score, file by file."""

    def test(material: Material) -> list[Evidence]:
        rows = []
        for codec, scores in _differences(material.enhancers, name, score).items():
            found = resample([scores])
            low, high = found.interval()
            sure = scores.shape[1] >= MIN_TRACKS and not low <= 0 <= high
            verdict = UNDECIDED if not sure else HOLDS if sign * found.value > 0 else FAILS
            size = f"{codec}, {scores.shape[1]} files of 4 s"
            about = (scores.shape[1], None, None, (), "another codec than the reports'", size)
            rows.append(Evidence(f"{score}, {name} − none", verdict, found.value, low, high, unit, *about))
        return rows

    return test


def _front_end(better: str, worse: str) -> Test:
    """Return a test that a front end loses less than another; one seed, so it decides nothing."""

    def test(material: Material) -> list[Evidence]:
        by_name = {row["name"]: row for row in material.front_ends}
        if better not in by_name or worse not in by_name:
            return []
        ratio = by_name[better]["with"]["log_mel_l1"] / by_name[worse]["with"]["log_mel_l1"]
        size = f"small autoencoder, {by_name[better]['steps']} steps, one seed"
        return [
            Evidence(f"log-mel difference: {better} / {worse}", UNDECIDED, ratio, unit="×", notes="one seed", size=size)
        ]

    return test


def _lacks(key: str, place: str, statement: str) -> Claim:
    return Claim(key, place, statement, WEIGHTS, lambda material: [], LADDER, True)


def _enhancers(name: str, snr_db: float, high: float, correlation: float) -> list[Claim]:
    """Return the claims on an enhancer of latents: its numbers, and that it is a gain."""
    numbers = f"{name}: SNR {snr_db:+.2f} dB, energy above 4 kHz {high:+.1f} %, correlation {correlation:+.4f}."
    gain = f"{name} brings more of the band above 4 kHz back"
    lower = _enhancer(name, HIGH_ERROR, -1, "nat")
    return [
        _lacks(f"{name}_numbers", ENHANCED, numbers),
        Claim(
            f"{name}_raises_energy",
            ENHANCED,
            f"{gain}: its energy rises.",
            "rows of benchmarks/enhancers.py",
            _enhancer(name, HIGH_KEPT, 1, "%"),
            ENHANCERS,
        ),
        Claim(
            f"{name}_lowers_error",
            ENHANCED,
            f"{gain}: its error falls.",
            "rows of benchmarks/enhancers.py",
            lower,
            ENHANCERS,
        ),
    ]


_MSE_RATIO_DB = 10 * math.log10(0.110385 / 0.022)
# fmt: off
CODEC_CLAIMS: tuple[Claim, ...] = (
    _lacks("vae_snr", BASELINE, "The autoencoder alone has an SNR of −0.81 dB and a correlation of 0.0667."),
    _lacks("vae_keeps", BASELINE,
           "It keeps 5.7 % of the energy above 4 kHz, 26.4 % from 500 Hz to 4 kHz and 61.7 % below."),
    said("snr_says_it", BASELINE, "An SNR of −0.81 dB measures how good the reconstruction is.", False,
         "The vocoder makes phases up, so waves cannot agree; silence has 0 dB and would be better."),
    *_enhancers("frequency", -3.01, 94.9, 0.0200),
    *_enhancers("noise", -0.02, 0.3, -0.0045),
    *_enhancers("contrast", -2.97, 7.0, 0.0095),
    *_enhancers("mixed", -3.64, 93.0, 0.0194),
    said("5_7_becomes_95", ENHANCED, "With frequency the energy kept above 4 kHz rises from 5.7 to 95 %.", False,
         f"94.9 % was the relative gain or the points gained: 5.7 % × 1.949 = {5.7 * 1.949:.1f} %, or 5.7 + 94.9 "
         "= 100.6 %. Neither is 95."),
    said("lower_snr_is_a_gain", ENHANCED, "The SNR falls because what was missing came back, so it is a gain.", False,
         "What is right raises the SNR of a wave; energy at wrong phases lowers it. The correlation of 0.087 is "
         "still that of strangers."),
    said("vocoder_is_worse", NOISE,
         "Griffin-Lim has −0.07 dB (MSE 0.022), HiFi-GAN −7.11 dB (MSE 0.110): the two numbers agree.",
         abs(_MSE_RATIO_DB - 7.04) < 0.1,
         f"10 log10(0.110385 / 0.022) = {_MSE_RATIO_DB:.2f} dB, 7.11 − 0.07 = 7.04 dB"),
    said("so_the_vae_is_at_fault", NOISE, "HiFi-GAN is worse than Griffin-Lim, so the fault lies in the autoencoder.",
         False,
         "Both follow the same autoencoder, so what differs is what comes after it; and both are worse than "
         "silence (0 dB)."),
    _lacks("hifigan_numbers", NOISE, "HiFi-GAN: SNR −7.11 dB, correlation 0.0062, MSE 0.110385."),
    Claim("decibel_front_end", NOISE,
          "The cause may be the input: power in decibels over 20 is not what the autoencoder was trained on.",
          "rows of benchmarks/enhancers.py before and behind a decibel front end",
          lambda material: _decibel(material.enhancers), ENHANCERS),
    _lacks("plan_start", PLAN, "The best SNR so far is −1.96 dB, at a correlation of 0.0125."),
    said("plan_snr_best", PLAN, "−1.96 dB is the best SNR so far.", False,
         "The other reports have −0.81 and −0.07 dB."),
    said("vocoder_gains_5_to_10_db", PLAN, "A neural vocoder in place of Griffin-Lim raises the SNR by 5 to 10 dB.",
         False, "By their own later numbers it fell by 7.04 dB (−0.07 to −7.11)."),
    Claim("mels_gain_2_to_3_db", PLAN, "128 mels in place of 64 (n_fft 2048) raise the SNR by 2 to 3 dB.",
          "arms of benchmarks/front_ends.py; a mel spectrum has no SNR, so by its log-mel difference",
          _front_end("base", "64 mels"), FRONT_ENDS),
    said("full_band_instead_of_8_khz", PLAN, "fmax = sample_rate / 2 in place of 8000 Hz widens the band.", False,
         "16 000 / 2 = 8000: nothing changes."),
    Claim("normalising_gains_1_to_2_db", PLAN,
          "Another normalisation (percentiles, z-score, tanh) raises the SNR by 1 to 2 dB.",
          "arms of benchmarks/front_ends.py, by their log-mel difference", _front_end("base", "scaling none"),
          FRONT_ENDS),
    _lacks("fine_tuning_gains_3_to_5_db", PLAN,
           "Fine-tuning the autoencoder, or one of its own, raises the SNR by 3 to 5 dB."),
    said("stages_gain_agrees", PLAN, "Several stages raise the SNR by 2 to 4 dB (text), 3 to 5 dB (table).", False,
         "One plan, two numbers."),
    _lacks("stages_gain_2_to_5_db", PLAN,
           "Coarse reconstruction, detail network and post filter raise the SNR by 2 to 5 dB."),
    _lacks("end_to_end_gains_10_db", PLAN,
           "Compression in the wave domain raises the SNR by more than 10 dB, and +5 dB can be reached."),
    fact("upsampling_is_hop_160", PLAN, "Upsampling by 5, 4, 2, 2 and 2 fits a hop of 160 samples.", 160,
         5 * 4 * 2 * 2 * 2, "1", "5 · 4 · 2 · 2 · 2"),
    fact("hop_160_is_10_ms", NOISE, "At 16 kHz a hop of 160 samples is 10 ms.", 10, 1e3 * 160 / 16000, "ms",
         "160 / 16 000 Hz"),
)
# fmt: on


def _decibel(rows: Sequence[Mapping[str, Any]]) -> list[Evidence]:
    """Compare the codec alone behind its own front end and behind one of decibels, file by file."""
    alone: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["enhancer"] == "codec":
            alone.setdefault(row["codec"], {})[row["file"]] = row["scores"][HIGH_ERROR]
    pairs = [(name, name + BEHIND) for name in alone if name + BEHIND in alone]
    found = []
    for right, wrong in pairs:
        apart = resample([np.array([[alone[wrong][file] - alone[right][file] for file in alone[right]]])])
        low, high = apart.interval()
        verdict = UNDECIDED if len(alone[right]) < MIN_TRACKS or low <= 0 <= high else HOLDS if low > 0 else FAILS
        about = (
            len(alone[right]),
            None,
            None,
            (),
            "another codec than the reports'",
            f"{right}, {len(alone[right])} files of 4 s",
        )
        found.append(
            Evidence(f"{HIGH_ERROR}: decibels − its own front end", verdict, apart.value, low, high, "nat", *about)
        )
    return found
