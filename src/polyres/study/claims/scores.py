"""Claims of the notes about scores and costs."""

from __future__ import annotations

from collections.abc import Sequence

from polyres.separation.variants import FIVE, THREE
from polyres.study.claims.base import (
    ABOVE,
    EACH,
    HALF_WIDTH,
    MARGIN_DB,
    NO_WORSE,
    SAME,
    SAME_WIDTH,
    Claim,
    Evidence,
    Pairs,
    Rule,
    Test,
    cost_test,
    listens,
    pair_text,
    score_evidence,
    score_test,
    untestable,
)
from polyres.study.claims.contrasts import Term, contrast
from polyres.study.paper.data import RESOLUTION_KEYS, matches
from polyres.study.paper.weights import Material

HOLLOW = ("onset_correlation", "attack_time_error", "crest_factor_error", "low_band_envelope_error")

BY_RESOLUTIONS = Pairs(listens(*FIVE), listens(*THREE), RESOLUTION_KEYS)


def _without(n_fft: int) -> Pairs:
    rest = tuple(one for one in FIVE if one != n_fft)
    return Pairs(listens(*FIVE), listens(*rest), RESOLUTION_KEYS)


def _both(*tests: Test) -> Test:
    return lambda material: [row for test in tests for row in test(material)]


def _worse_than_single(material: Material) -> list[Evidence]:
    """Score the baseline against methods of half its width, the other way round."""
    rows = []
    for study, method, baseline in HALF_WIDTH.find(material):
        found = contrast(study, [Term(1, baseline), Term(-1, method)], study.primary)
        if found is not None:
            what = f"{study.primary}, all stems: {pair_text(baseline, method)}"
            rows.append(score_evidence(found, ABOVE, what, study, (baseline, method)))
    return rows


def _low_stems_gain_most(material: Material) -> list[Evidence]:
    """Score the gain on drums and bass less the gain on other and vocals."""
    rows = []
    for study, method, baseline in [*HALF_WIDTH.find(material), *SAME_WIDTH.find(material)]:
        terms = [
            Term(sign * factor, arm, (source,))
            for factor, arm in ((0.5, method), (-0.5, baseline))
            for sign, source in ((1, "drums"), (1, "bass"), (-1, "other"), (-1, "vocals"))
        ]
        found = contrast(study, terms, study.primary)
        if found is not None:
            what = f"{study.primary}, drums and bass less other and vocals: {pair_text(method, baseline)}"
            rows.append(score_evidence(found, ABOVE, what, study, (method, baseline)))
    return rows


def _diminishing(material: Material) -> list[Evidence]:
    """Score the step from two resolutions to three less the step from three to five."""
    rows = []
    for study, three, two in matches(material.studies, listens(*THREE), listens(2048, 8192), RESOLUTION_KEYS):
        five = [a for s, a, b in matches([study], listens(*FIVE), listens(*THREE), RESOLUTION_KEYS) if b is three]
        for arm in five:
            terms = [Term(2, three), Term(-1, two), Term(-1, arm)]
            found = contrast(study, terms, study.primary)
            if found is not None:
                what = f"{study.primary}: ({three.name} − {two.name}) − ({arm.name} − {three.name})"
                rows.append(score_evidence(found, ABOVE, what, study, (two, three, arm)))
    return rows


def _knock_out(n_fft: int, sources: tuple[str, ...] | None, against: Sequence[int] = ()) -> Test:
    """Return a test that a resolution's knock-out loses more than that of others, at inference."""

    def test(material: Material) -> list[Evidence]:
        rows = []
        for study in material.studies:
            for arm in study.arms:
                parts = study.parts(arm, study.primary)
                if arm.model is None or f"without {n_fft}" not in parts:
                    continue
                for other in against or [size for size in arm.model.n_fft if size != n_fft]:
                    terms = [Term(1, arm, sources, f"without {other}"), Term(-1, arm, sources, f"without {n_fft}")]
                    found = contrast(study, terms, study.primary)
                    if found is not None:
                        stems = "all stems" if sources is None else ", ".join(sources)
                        what = f"{study.primary}, {stems}, {arm.name}: loss without {n_fft} − loss without {other}"
                        rows.append(score_evidence(found, ABOVE, what, study, (arm,)))
        return rows

    return test


TWO_WIDTHS = "an arm of several resolutions and one of a single one (4096) with twice its channels"
ONE_WIDTH = "an arm of several resolutions and one of a single one (4096) of equal width"
OF_FIVE = "arms with [1024 … 16384] and with [2048, 4096, 8192] that differ in nothing else"
# fmt: off
RESOLUTION_CLAIMS: tuple[Claim, ...] = (
    Claim("multi_beats_single", "notes, findings 1; draft 7",
          "Several resolutions score higher than one, in every configuration tried.", ONE_WIDTH,
          score_test(SAME_WIDTH, ABOVE)),
    Claim("half_width_beats_single", "draft 0, 4.2 (1)",
          "With half the channels, several resolutions score higher than one on every stem.", TWO_WIDTHS,
          score_test(HALF_WIDTH, ABOVE, EACH)),
    Claim("half_width_costs_nothing", "notes, findings 2; draft 3.3, 5.2",
          f"Halving the channels costs no quality once there are several resolutions (at most {MARGIN_DB} dB).",
          TWO_WIDTHS, score_test(HALF_WIDTH, NO_WORSE)),
    Claim("half_width_scores_lower", "notes, known problems 4",
          "In the official configuration n and nn score below the baseline.", TWO_WIDTHS, _worse_than_single),
    Claim("half_width_fewer_macs", "notes 0; draft 4.2 (3), 6.2",
          "With half the channels, several resolutions take fewer multiply-accumulates than one.", TWO_WIDTHS,
          cost_test(HALF_WIDTH, "macs_per_s", "MACs per second of audio")),
    Claim("half_width_faster", "notes 0", "With half the channels, several resolutions separate faster than one.",
          TWO_WIDTHS + ", two seeds or more", cost_test(HALF_WIDTH, "eval_s", "evaluation time")),
    Claim("drums_and_bass_gain_most", "notes 0; draft 4.2 (4)", "Drums and bass gain most from several resolutions.",
          f"{ONE_WIDTH}, or {TWO_WIDTHS}", _low_stems_gain_most),
    Claim("drums_not_hollow", "notes 0; draft 4.4, 6.4",
          "Drums of several resolutions are less hollow: their onsets, attacks, crests and lows are nearer the truth.",
          f"{ONE_WIDTH} (or twice as wide), scored with {', '.join(HOLLOW)}; a stand-in for ears",
          _both(score_test(HALF_WIDTH, ABOVE, (("drums",),), HOLLOW), score_test(SAME_WIDTH, ABOVE, (("drums",),),
                                                                                 HOLLOW))),
    Claim("bass_not_hollow", "notes 0; draft 4.4",
          "Bass of several resolutions has more body: its envelope below 150 Hz is nearer the truth.",
          f"{ONE_WIDTH} (or twice as wide), scored with low_band_envelope_error; a stand-in for ears",
          _both(score_test(HALF_WIDTH, ABOVE, (("bass",),), HOLLOW[3:]), score_test(SAME_WIDTH, ABOVE, (("bass",),),
                                                                                    HOLLOW[3:]))),
    Claim("vocals_unchanged", "draft 4.4", f"Vocals are as good with one resolution (within {MARGIN_DB} dB).",
          TWO_WIDTHS, score_test(HALF_WIDTH, SAME, (("vocals",),))),
    Claim("five_beats_three", "notes 0.5; draft 4.2 (2)", "Five resolutions beat three on drums, bass and other.",
          OF_FIVE, score_test(BY_RESOLUTIONS, ABOVE, EACH[:3])),
    Claim("five_hurts_vocals", "notes 0.5; draft 5.1", "Five resolutions are worse than three on vocals.", OF_FIVE,
          score_test(Pairs(listens(*THREE), listens(*FIVE), RESOLUTION_KEYS), ABOVE, (("vocals",),))),
    Claim("diminishing_returns", "draft 5.1",
          "Going from two resolutions to three gains more than going from three to five.",
          "arms with [2048, 8192], [2048, 4096, 8192] and [1024 … 16384] that differ in nothing else", _diminishing),
    Claim("1024_can_go", "notes 1, ablations; draft 5.1",
          f"Training without 1024 loses nothing (at most {MARGIN_DB} dB), so [2048 … 16384] is the best value.",
          "arms with [1024 … 16384] and without 1024 that differ in nothing else",
          score_test(Pairs(listens(*FIVE[1:]), listens(*FIVE), RESOLUTION_KEYS), NO_WORSE)),
    Claim("8192_must_stay", "notes, ablations", f"Training without 8192 loses much (more than {MARGIN_DB} dB).",
          "arms with [1024 … 16384] and without 8192 that differ in nothing else",
          score_test(_without(8192), Rule("above", MARGIN_DB))),
    Claim("2048_most_critical", "draft 0, 1.4 (4), 4.3 (1); notes, findings 4",
          "Of all resolutions 2048 is the most critical.",
          "rows of parts (without each resolution) of arms that have 2048", _knock_out(2048, None)),
    Claim("drums_need_2048", "draft 1.3; notes 0", "Drums depend on 2048 more than on 8192.",
          "rows of parts (without each resolution)", _knock_out(2048, ("drums",), (8192,))),
    Claim("bass_needs_2048", "draft 1.3; notes 0", "Bass depends on 2048 more than on 8192.",
          "rows of parts (without each resolution)", _knock_out(2048, ("bass",), (8192,))),
    Claim("vocals_need_4096", "draft 1.3", "Vocals depend on 4096 more than on any other resolution.",
          "rows of parts (without each resolution)", _knock_out(4096, ("vocals",))),
    untestable("longer_training_closes_gap", "notes, performance gap; draft 4.2",
               "After 50 to 100 epochs on MUSDB18-HQ several resolutions overtake the baseline.",
               "training of that length on MUSDB18-HQ"),
    untestable("baseline_reaches_6_db", "draft 4.2; notes, progress",
               "The baseline reaches 5.62 dB after 19 epochs on MUSDB18-HQ, 6.0 to 6.5 dB after 50 to 100.",
               "MUSDB18-HQ"),
    untestable("listeners_prefer_multi", "draft 4.4; notes 0",
               "Listeners find drums and bass of several resolutions full and punchy, those of the baseline hollow.",
               "a blind listening test"),
)
# fmt: on
