"""Claims of the notes about settings: fusions, transformers, widths, hops, norms and recipes."""

from __future__ import annotations

import numpy as np

from polyres.separation.model import SeparatorConfig
from polyres.study.claims.base import (
    ABOVE,
    FAILS,
    HOLDS,
    MARGIN_DB,
    NO_WORSE,
    SAME,
    UNDECIDED,
    Claim,
    Evidence,
    Material,
    Pairs,
    Rule,
    both,
    multi,
    output,
    score_test,
    size_of,
)
from polyres.study.claims.contrasts import doubts
from polyres.study.paper.data import Arm, Wanted

CONV_AND_WEIGHTS = Pairs(output("conv"), output("weights", "source_weights"), ("model.output",))


def _simple_and(kind: str) -> Pairs:
    """Return pairs of a simple output fusion and another one."""
    return Pairs(output("conv", "weights", "source_weights"), output(kind), ("model.output",))


def _unet(wave_branch: bool) -> Wanted:
    return lambda model: output("unet", "unet_notes")(model) and model.wave_branch == wave_branch


def _gradients(material: Material) -> list[Evidence]:
    """Compare how large the gradients of two output fusions are, over the epochs of their runs."""
    rows = []
    pairs = Pairs(output("unet_notes"), output("conv"), ("model.output", "model.wave_branch", "model.transformer"))
    for study, first, second in pairs.find(material):
        norms = [
            [
                float(row["grad_norms"]["output"])
                for run in arm.runs
                for row in run.epochs
                if "output" in (row.get("grad_norms") or {})
            ]
            for arm in (first, second)
        ]
        if all(norms):
            ratio = float(np.mean(norms[0]) / np.mean(norms[1]))
            verdict = UNDECIDED if doubts(study, first, second) else HOLDS if ratio >= 2 else FAILS
            what = f"gradient norm of the output fusion: {first.name} / {second.name}"
            about = (study.name, tuple(run.name for arm in (first, second) for run in arm.runs))
            notes = "; ".join(("two or more asked", *doubts(study, first, second)))
            rows.append(
                Evidence(
                    what,
                    verdict,
                    ratio,
                    None,
                    None,
                    "×",
                    None,
                    len(first.runs),
                    *about,
                    notes,
                    size_of(study, (first, second)),
                )
            )
    return rows


def _narrower(first: SeparatorConfig, second: SeparatorConfig) -> bool:
    """Say whether the second model has two thirds of the first one's width, as 16 channels against 24."""
    return multi(first) and 3 * second.channels == 2 * first.channels


def _more(key: str) -> Pairs:
    """Return pairs of multi-resolution arms of which the first has more of a setting, and else nothing."""
    return Pairs(multi, multi, (), (key,), settings=lambda a, b: _number(a, key) > _number(b, key))


def _number(arm: Arm, key: str) -> float:
    return max(
        (float(v) for k, v in arm.training.items() if k.startswith(key) and isinstance(v, int | float)), default=0
    )


def transformers(first: str, second: str) -> Pairs:
    """Return pairs of arms that differ in the kind of transformer only."""
    return Pairs(
        lambda model: model.transformer.kind == first,
        lambda model: model.transformer.kind == second,
        ("model.transformer",),
    )


def _repitches(arm: Arm) -> bool:
    chain = arm.training.get("augment.chain")
    chance = arm.training.get("augment.repitch.probability", 1.0)
    return isinstance(chain, list | tuple) and "repitch" in chain and chance > 0


def _shorter_hop(model: SeparatorConfig) -> bool:
    return model.hop_ratio == 4 and model.hop_length is None


HOP = Pairs(lambda m: m.hop_ratio == 2 and m.hop_length is None, _shorter_hop, ("model.hop_ratio",))
# fmt: off
SETTING_CLAIMS: tuple[Claim, ...] = (
    Claim("conv_beats_weights", "notes 0.7", "At the output, a convolution over 129 samples beats scalar weights.",
          "arms that differ in the output fusion only: conv, and weights or source_weights",
          score_test(CONV_AND_WEIGHTS, ABOVE), "output_fusion"),
    Claim("conv_gains_little", "draft 3.2, 5.3; notes 0.7",
          "The convolution gains less than 0.2 dB over scalar weights.",
          "arms that differ in the output fusion only: conv, and weights or source_weights",
          score_test(CONV_AND_WEIGHTS, Rule("below", 0.2)), "output_fusion"),
    Claim("weights_lose_0_1_to_0_2_db", "notes 0.7", "Scalar weights lose 0.1 to 0.2 dB to the convolution.",
          "arms that differ in the output fusion only: conv, and weights or source_weights",
          both(score_test(CONV_AND_WEIGHTS, Rule("above", 0.1)), score_test(CONV_AND_WEIGHTS, Rule("below", 0.2))),
          "output_fusion"),
    Claim("unet_fails", "notes 0.6; draft 5.3",
          "Fusion by TimeUNet2D as the notes had it (unet_notes: GELU everywhere, nothing added back) scores "
          "below simple fusion.",
          "arms that differ in the output fusion only: unet_notes, and conv, weights or source_weights",
          score_test(_simple_and("unet_notes"), ABOVE), "output_fusion"),
    Claim("mended_unet_fails", "notes 0.6 (dn, dnf)",
          "So does another time U-Net: unet, which dn and dnf of this package have (it adds to the mean and "
          "starts as it).", "arms that differ in the output fusion only: unet, and conv, weights or source_weights",
          score_test(_simple_and("unet"), ABOVE), "output_fusion"),
    Claim("wave_branch_does_not_help_unet", "notes 0.6",
          "A wave branch beside TimeUNet2D (dn against dnf) changes nothing about it (gains at most 0.1 dB).",
          "arms with unet or unet_notes that differ in wave_branch only",
          score_test(Pairs(_unet(True), _unet(False), (), ("model.wave_branch",)), Rule("below", MARGIN_DB)),
          "output_fusion"),
    Claim("unet_gradients_several_times", "notes 0.6", "The gradients of dnf's fusion are several times those of n's.",
          "arms with unet_notes and with conv, and gradient norms in their metrics", _gradients, "output_fusion"),
    Claim("progressive_mends_unet", "notes 0.6",
          "A fusion that reduces the resolutions step by step (progressive) beats TimeUNet2D.",
          "arms that differ in the output fusion only: progressive and unet_notes",
          score_test(Pairs(output("progressive"), output("unet_notes"), ("model.output",)), ABOVE), "output_fusion"),
    Claim("bottleneck_conv_not_worth_it", "notes, tried (given up)",
          f"At the bottleneck a convolution gains nothing over weights (at most {MARGIN_DB} dB).",
          "arms that differ in the bottleneck fusion only: conv and weights",
          score_test(Pairs(lambda m: multi(m) and m.bottleneck.kind == "weights",
          lambda m: multi(m) and m.bottleneck.kind == "conv", ("model.bottleneck",)), NO_WORSE), "bottleneck_fusion"),
    Claim("source_weights_help", "draft 6.6; notes 0.5", "Weights per stem beat weights shared by all stems.",
          "arms that differ in the output fusion only: source_weights and weights",
          score_test(Pairs(output("source_weights"), output("weights"), ("model.output",)), ABOVE), "output_fusion"),
    Claim("learning_weights_helps", "notes, ablations", "Learned weights beat fixed ones.",
          "arms that differ in the output fusion only: learned weights, and mean or frozen ones",
          score_test(Pairs(output("weights", "source_weights"),
          lambda m: multi(m) and (m.output.kind == "mean" or not m.output.learned), ("model.output",)), ABOVE),
          "output_weights"),
    Claim("favoured_start_helps", "notes, to be tested",
          "Weights that start in favour of 4096 or 8192 end better than those that start even.",
          "arms that differ in output.favour_n_fft only",
          score_test(Pairs(lambda m: multi(m) and m.output.favour_n_fft in (4096, 8192), output("weights",
          "source_weights"), (), ("model.output.favour_n_fft",)), ABOVE), "output_weights"),
    Claim("linear_transformer_as_good", "notes 0",
          f"A linear transformer is as good as a softmax one (at most {MARGIN_DB} dB below).",
          "arms that differ in transformer.kind only: linear and softmax",
          score_test(transformers("linear", "softmax"), NO_WORSE), "transformer"),
    Claim("sparse_transformer_as_good", "notes, ablations",
          f"A sparse transformer is as good as a softmax one (at most {MARGIN_DB} dB below).",
          "arms that differ in transformer.kind only: sparse and softmax",
          score_test(transformers("sparse", "softmax"), NO_WORSE), "transformer"),
    Claim("transformer_little_use", "notes 0",
          f"On little data the transformer is hardly worth having (leaving it out costs at most {MARGIN_DB} dB).",
          "arms that differ in transformer.kind only: none and another",
          score_test(Pairs(lambda m: m.transformer.kind == "none", lambda m: m.transformer.kind != "none",
          ("model.transformer",)), NO_WORSE), "transformer"),
    Claim("narrower_is_worse", "draft 5.2",
          "24 channels are the least: 16 (two thirds of the width) are clearly worse.",
          "arms of several resolutions that differ in channels only, one with two thirds of the other's",
          score_test(Pairs(multi, multi, (), ("model.channels",), fits=_narrower), ABOVE), "channels"),
    Claim("norm_starts_no_matter", "draft 5.4; notes 0.8",
          f"norm_starts 3 or 4 makes no difference (within {MARGIN_DB} dB).", "arms that differ in norm_starts only",
          score_test(Pairs(lambda m: m.norm_starts == 3, lambda m: m.norm_starts == 4, (), ("model.norm_starts",)),
          SAME), "norm_starts"),
    Claim("standard_hop_better", "notes, compared models (2nn)",
          "A hop of n_fft / 2 scores higher than n_fft / 4 for its time resolution.",
          "arms that differ in hop_ratio only", score_test(HOP, ABOVE), "hop"),
    Claim("higher_rate_helps", "notes, performance gap", "Several resolutions gain from a higher learning rate.",
          "arms of several resolutions that differ in optimiser.lr only", score_test(_more("optimiser.lr"), ABOVE),
          "learning_rate"),
    Claim("longer_warmup_helps", "notes, performance gap", "Several resolutions gain from a longer warm-up.",
          "arms of several resolutions that differ in schedule.warmup only",
          score_test(_more("schedule.warmup"), ABOVE), "learning_rate"),
    Claim("repitch_hurts", "notes, performance gap",
          "Several resolutions gain when repitch is left out of the augmentations.",
          "arms of several resolutions that differ in the augmentation only, with and without repitch",
          score_test(Pairs(multi, multi, (), ("augment",), settings=lambda a, b: _repitches(b) and not _repitches(a)),
          ABOVE), "repitch"),
    Claim("wider_helps", "notes, performance gap",
          "A third more channels (24 to 32) closes the gap: they score higher.",
          "arms of several resolutions that differ in channels only, one with four thirds of the other's",
          score_test(Pairs(multi, multi, (), ("model.channels",), fits=lambda a, b: 3 * a.channels == 4 * b.channels),
          ABOVE), "channels"),
)
# fmt: on
