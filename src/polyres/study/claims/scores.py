"""Claims of the notes about scores and costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from polyres.separation.model import SeparatorConfig
from polyres.separation.variants import FIVE, THREE, VARIANTS
from polyres.study.claims.base import (
    ABOVE,
    EACH,
    FAILS,
    HALF_WIDTH,
    HOLDS,
    MARGIN_DB,
    NO_WORSE,
    SAME,
    SAME_WIDTH,
    UNDECIDED,
    Claim,
    Evidence,
    Material,
    Pairs,
    Rule,
    Test,
    both,
    listens,
    pair_text,
    score_evidence,
    score_test,
    single,
    size_of,
)
from polyres.study.claims.contrasts import Term, contrast
from polyres.study.paper.data import RESOLUTION_KEYS, PaperStudy, matches

HOLLOW = ("onset_correlation", "attack_time_error", "crest_factor_error", "low_band_envelope_error")

MUCH_LONGER = 5
MANY_EPOCHS = 50
MIN_LISTENERS = 10

BY_RESOLUTIONS = Pairs(listens(*FIVE), listens(*THREE), RESOLUTION_KEYS)


def _without(n_fft: int) -> Pairs:
    rest = tuple(one for one in FIVE if one != n_fft)
    return Pairs(listens(*FIVE), listens(*rest), RESOLUTION_KEYS)


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


def _longer(material: Material) -> list[Evidence]:
    """Score the lead of several resolutions after long training less that after short training."""
    rows = []
    pairs = [*SAME_WIDTH.find(material), *HALF_WIDTH.find(material)]
    for study, multi_long, single_long in pairs:
        for other, multi_short, single_short in pairs:
            same = (multi_long.model, single_long.model) == (multi_short.model, single_short.model)
            steps = [arm.cost("steps") or 0.0 for arm in (multi_long, multi_short)]
            if study is not other or not same or steps[0] < MUCH_LONGER * steps[1]:
                continue
            arms = (multi_long, single_long, multi_short, single_short)
            found = contrast(study, [Term(f, arm) for f, arm in zip((1, -1, -1, 1), arms, strict=True)], study.primary)
            if found is not None:
                names = [arm.name for arm in arms]
                what = f"{study.primary}: ({names[0]} − {names[1]}) − ({names[2]} − {names[3]})"
                rows.append(score_evidence(found, ABOVE, what, study, arms))
    return rows


def _musdb(material: Material) -> list[PaperStudy]:
    return [study for study in material.studies if study.about.data.get("layout") == "musdb18hq"]


def _on_musdb(material: Material) -> list[Evidence]:
    """Compare methods of half the width with the baseline after 50 epochs or more on MUSDB18-HQ."""
    found = score_test(HALF_WIDTH, ABOVE)(replace(material, studies=_musdb(material)))
    epochs = {run.name: len(run.epochs) for study in _musdb(material) for arm in study.arms for run in arm.runs}
    return [row for row in found if min(epochs[name] for name in row.runs) >= MANY_EPOCHS]


def _baseline_reaches(material: Material) -> list[Evidence]:
    """Look up the best validation scores of HTDemucs with 48 channels on MUSDB18-HQ."""
    rows = []
    for study in _musdb(material):
        for arm in study.arms:
            for run in arm.runs if arm.model is not None and single(arm.model) and arm.model.channels == 48 else ():
                scores = [one.score for one in run.validations()]
                for epoch, low, high in ((19, 5.52, 5.72), (MANY_EPOCHS, 6.0, 6.5)):
                    if len(scores) >= epoch:
                        best = max(scores[:19] if epoch == 19 else scores[:100])
                        verdict, what = (
                            HOLDS if low <= best <= high else FAILS,
                            f"{run.name}: validation nSDR, epoch {epoch} on",
                        )
                        about = (None, 1, study.name, (run.name,), f"{low:g} to {high:g} asked", size_of(study, (arm,)))
                        rows.append(Evidence(what, verdict, best, None, None, "dB", *about))
    return rows


def _listeners(material: Material) -> list[Evidence]:
    """Read ratings of drums and bass from listening tests; those of simulated listeners say nothing about ears."""
    rows = []
    for report in material.listening:
        blocks = (
            []
            if report["simulated_listeners"]
            else [one for one in report["blocks"] if one["stem"] in ("drums", "bass")]
        )
        kept = [one for one in blocks if one["screened"]] or blocks
        for block, pair in ((one, pair["tests"]) for one in kept for pair in one["pairs"]):
            names = [report["labels"][pair[side]] for side in ("first", "second")]
            several = [name in VARIANTS and len(VARIANTS[name].n_fft) > 1 for name in names]
            if not all(name in VARIANTS for name in names) or several[0] == several[1]:
                continue
            sign = 1 if several[0] else -1
            low, high = sorted((sign * pair["low"], sign * pair["high"]))
            few = pair["listeners"] < MIN_LISTENERS
            verdict = UNDECIDED if few or low <= 0 <= high else HOLDS if low > 0 else FAILS
            what = f"{block['attribute']} of {block['stem']}: {' − '.join(names[::sign])}"
            notes, size = f"{pair['listeners']} listeners, {MIN_LISTENERS} wanted", f"{pair['listeners']} listeners"
            about = (len(block["items"]), None, report["study"], (), notes, size)
            rows.append(Evidence(what, verdict, sign * pair["difference"], low, high, "points", *about))
    return rows


def _only_vocals_limited(model: SeparatorConfig) -> bool:
    return tuple(model.output.allowed) == ("vocals",)


TWO_WIDTHS = "an arm of several resolutions and one of a single one (4096) with twice its channels"
ONE_WIDTH = "an arm of several resolutions and one of a single one (4096) of equal width"
MUSDB = "polyres study recipes/studies/variants.yaml --data DATA --set epochs=100"
OF_FIVE = "arms with [1024 … 16384] and with [2048, 4096, 8192] that differ in nothing else"
# fmt: off
RESOLUTION_CLAIMS: tuple[Claim, ...] = (
    Claim("multi_beats_single", "notes, findings 1; draft 7",
          "Several resolutions score higher than one, in every configuration tried.", ONE_WIDTH,
          score_test(SAME_WIDTH, ABOVE), "family"),
    Claim("half_width_beats_single", "draft 0, 4.2 (1)",
          "With half the channels, several resolutions score higher than one on every stem.", TWO_WIDTHS,
          score_test(HALF_WIDTH, ABOVE, EACH), "family"),
    Claim("half_width_costs_nothing", "notes, findings 2; draft 3.3, 5.2",
          f"Halving the channels costs no quality once there are several resolutions (at most {MARGIN_DB} dB).",
          TWO_WIDTHS, score_test(HALF_WIDTH, NO_WORSE), "family"),
    Claim("half_width_scores_lower", "notes, known problems 4",
          "In the official configuration n and nn score below the baseline.", TWO_WIDTHS, _worse_than_single,
          "family"),
    Claim("gap_is_0_1_to_0_3_db", "notes, known problems 4",
          "In the official configuration n and nn lie 0.1 to 0.3 dB below the baseline.", TWO_WIDTHS,
          both(score_test(HALF_WIDTH, Rule("below", -0.1)), score_test(HALF_WIDTH, Rule("above", -0.3))), "family"),
    Claim("drums_and_bass_gain_most", "notes 0; draft 4.2 (4)", "Drums and bass gain most from several resolutions.",
          f"{ONE_WIDTH}, or {TWO_WIDTHS}", _low_stems_gain_most, "family"),
    Claim("drums_not_hollow", "notes 0; draft 4.4, 6.4",
          "Drums of several resolutions are less hollow: their onsets, attacks, crests and lows are nearer the truth.",
          f"{ONE_WIDTH} (or twice as wide), scored with {', '.join(HOLLOW)}; a stand-in for ears",
          both(score_test(HALF_WIDTH, ABOVE, (("drums",),), HOLLOW), score_test(SAME_WIDTH, ABOVE, (("drums",),),
          HOLLOW)), "family"),
    Claim("bass_not_hollow", "notes 0; draft 4.4",
          "Bass of several resolutions has more body: its envelope below 150 Hz is nearer the truth.",
          f"{ONE_WIDTH} (or twice as wide), scored with low_band_envelope_error; a stand-in for ears",
          both(score_test(HALF_WIDTH, ABOVE, (("bass",),), HOLLOW[3:]), score_test(SAME_WIDTH, ABOVE, (("bass",),),
          HOLLOW[3:])), "family"),
    Claim("vocals_unchanged", "draft 4.4", f"Vocals are as good with one resolution (within {MARGIN_DB} dB).",
          TWO_WIDTHS, score_test(HALF_WIDTH, SAME, (("vocals",),)), "family"),
    Claim("five_beats_three", "notes 0.5; draft 4.2 (2)", "Five resolutions beat three on drums, bass and other.",
          OF_FIVE, score_test(BY_RESOLUTIONS, ABOVE, EACH[:3]), "resolutions"),
    Claim("five_hurts_vocals", "notes 0.5; draft 5.1", "Five resolutions are worse than three on vocals.", OF_FIVE,
          score_test(Pairs(listens(*THREE), listens(*FIVE), RESOLUTION_KEYS), ABOVE, (("vocals",),)), "resolutions"),
    Claim("diminishing_returns", "draft 5.1",
          "Going from two resolutions to three gains more than going from three to five.",
          "arms with [2048, 8192], [2048, 4096, 8192] and [1024 … 16384] that differ in nothing else", _diminishing,
          "resolutions"),
    Claim("vocals_want_middle", "notes 0.5",
          f"Vocals lose nothing where they may use middle windows only, as [2048, 4096, 8192] (at most {MARGIN_DB} "
          "dB).", "arms that differ in output.allowed only", score_test(Pairs(_only_vocals_limited,
          lambda model: not model.output.allowed, (), ("model.output.allowed",)), NO_WORSE, (("vocals",),)),
          "source_sets"),
    Claim("1024_can_go", "notes 1, ablations; draft 5.1",
          f"Training without 1024 loses nothing (at most {MARGIN_DB} dB), so [2048 … 16384] is the best value.",
          "arms with [1024 … 16384] and without 1024 that differ in nothing else",
          score_test(Pairs(listens(*FIVE[1:]), listens(*FIVE), RESOLUTION_KEYS), NO_WORSE), "remove_one"),
    Claim("8192_must_stay", "notes, ablations", f"Training without 8192 loses much (more than {MARGIN_DB} dB).",
          "arms with [1024 … 16384] and without 8192 that differ in nothing else",
          score_test(_without(8192), Rule("above", MARGIN_DB)), "remove_one"),
    Claim("2048_most_critical", "draft 0, 1.4 (4), 4.3 (1); notes, findings 4",
          "Of all resolutions 2048 is the most critical.",
          "rows of parts (without each resolution) of arms that have 2048", _knock_out(2048, None), "resolutions"),
    Claim("drums_need_2048", "draft 1.3; notes 0", "Drums depend on 2048 more than on 8192.",
          "rows of parts (without each resolution)", _knock_out(2048, ("drums",), (8192,)), "resolutions"),
    Claim("bass_needs_2048", "draft 1.3; notes 0", "Bass depends on 2048 more than on 8192.",
          "rows of parts (without each resolution)", _knock_out(2048, ("bass",), (8192,)), "resolutions"),
    Claim("vocals_need_4096", "draft 1.3", "Vocals depend on 4096 more than on any other resolution.",
          "rows of parts (without each resolution)", _knock_out(4096, ("vocals",)), "resolutions"),
    Claim("longer_training_helps_multi", "notes, performance gap; draft 4.2",
          "Longer training helps several resolutions more than one.",
          "arms of several resolutions and of one, each trained for few and for ten times as many steps", _longer,
          "longer"),
    Claim("longer_training_closes_gap", "notes, performance gap; draft 4.2",
          "After 50 to 100 epochs on MUSDB18-HQ several resolutions overtake the baseline.",
          "training of that length on MUSDB18-HQ", _on_musdb, MUSDB, True),
    Claim("baseline_reaches_6_db", "draft 4.2; notes, progress",
          "The baseline reaches 5.62 dB after 19 epochs on MUSDB18-HQ, 6.0 to 6.5 dB after 50 to 100.", "MUSDB18-HQ",
          _baseline_reaches, MUSDB, True),
    Claim("htdemucs_below_hdemucs", "notes 0",
          "Trained on MUSDB18 alone, HTDemucs scores below Hybrid Demucs (said to be in Défossez 2021, which "
          "knows no HTDemucs).", "both on MUSDB18-HQ; Hybrid Demucs is no variant here", lambda material: [],
          lacks=True),
    Claim("listeners_prefer_multi", "draft 4.4; notes 0",
          "Listeners find drums and bass of several resolutions full and punchy, those of the baseline hollow.",
          "a blind listening test", _listeners, "polyres listen new STUDY.yaml --out listening", True),
)
# fmt: on
