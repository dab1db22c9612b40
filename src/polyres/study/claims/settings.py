"""Claims of the notes about settings: fusions, transformers, widths, hops, norms and recipes."""

from __future__ import annotations

from polyres.separation.model import SeparatorConfig
from polyres.study.claims.base import (
    ABOVE,
    MARGIN_DB,
    NO_WORSE,
    SAME,
    Claim,
    Pairs,
    Rule,
    cost_test,
    multi,
    output,
    score_test,
)
from polyres.study.paper.data import Arm

CONV_AND_WEIGHTS = Pairs(output("conv"), output("weights", "source_weights"), ("model.output",))
SIMPLE_AND_UNET = Pairs(output("conv", "weights", "source_weights"), output("unet"), ("model.output",))


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


def _transformers(first: str, second: str) -> Pairs:
    return Pairs(
        lambda model: model.transformer.kind == first,
        lambda model: model.transformer.kind == second,
        ("model.transformer",),
    )


def _repitches(arm: Arm) -> bool:
    chain = arm.training.get("augment.chain")
    return isinstance(chain, list | tuple) and "repitch" in chain


def _shorter_hop(model: SeparatorConfig) -> bool:
    return model.hop_ratio == 4 and model.hop_length is None


HOP = Pairs(lambda m: m.hop_ratio == 2 and m.hop_length is None, _shorter_hop, ("model.hop_ratio",))
# fmt: off
SETTING_CLAIMS: tuple[Claim, ...] = (
    Claim("conv_beats_weights", "notes 0.7", "At the output, a convolution over 129 samples beats scalar weights.",
          "arms that differ in the output fusion only: conv, and weights or source_weights",
          score_test(CONV_AND_WEIGHTS, ABOVE)),
    Claim("conv_gains_little", "draft 3.2, 5.3; notes 0.7",
          "The convolution gains less than 0.2 dB over scalar weights.",
          "arms that differ in the output fusion only: conv, and weights or source_weights",
          score_test(CONV_AND_WEIGHTS, Rule("below", 0.2))),
    Claim("unet_fails", "notes 0.6; draft 5.3", "Fusion by TimeUNet2D scores below simple fusion.",
          "arms that differ in the output fusion only: unet, and conv, weights or source_weights",
          score_test(SIMPLE_AND_UNET, ABOVE)),
    Claim("bottleneck_conv_not_worth_it", "notes, tried (given up)",
          f"At the bottleneck a convolution gains nothing over weights (at most {MARGIN_DB} dB).",
          "arms that differ in the bottleneck fusion only: conv and weights",
          score_test(Pairs(lambda m: multi(m) and m.bottleneck.kind == "weights",
                           lambda m: multi(m) and m.bottleneck.kind == "conv", ("model.bottleneck",)), NO_WORSE)),
    Claim("source_weights_help", "draft 6.6; notes 0.5", "Weights per stem beat weights shared by all stems.",
          "arms that differ in the output fusion only: source_weights and weights",
          score_test(Pairs(output("source_weights"), output("weights"), ("model.output",)), ABOVE)),
    Claim("learning_weights_helps", "notes, ablations", "Learned weights beat fixed ones.",
          "arms that differ in the output fusion only: learned weights, and mean or frozen ones",
          score_test(Pairs(output("weights", "source_weights"),
                           lambda m: multi(m) and (m.output.kind == "mean" or not m.output.learned),
                           ("model.output",)), ABOVE)),
    Claim("favoured_start_helps", "notes, to be tested",
          "Weights that start in favour of 4096 or 8192 end better than those that start even.",
          "arms that differ in output.favour_n_fft only",
          score_test(Pairs(lambda m: multi(m) and m.output.favour_n_fft in (4096, 8192),
                           output("weights", "source_weights"), (), ("model.output.favour_n_fft",)), ABOVE)),
    Claim("linear_transformer_as_good", "notes 0",
          f"A linear transformer is as good as a softmax one (at most {MARGIN_DB} dB below).",
          "arms that differ in transformer.kind only: linear and softmax",
          score_test(_transformers("linear", "softmax"), NO_WORSE)),
    Claim("linear_transformer_cheaper", "notes 0", "A linear transformer takes fewer multiply-accumulates.",
          "arms that differ in transformer.kind only: linear and softmax",
          cost_test(_transformers("linear", "softmax"), "macs_per_s", "MACs per second of audio")),
    Claim("transformer_little_use", "notes 0",
          f"On little data the transformer is hardly worth having (leaving it out costs at most {MARGIN_DB} dB).",
          "arms that differ in transformer.kind only: none and another",
          score_test(Pairs(lambda m: m.transformer.kind == "none", lambda m: m.transformer.kind != "none",
                           ("model.transformer",)), NO_WORSE)),
    Claim("narrower_is_worse", "draft 5.2",
          "24 channels are the least: 16 (two thirds of the width) are clearly worse.",
          "arms of several resolutions that differ in channels only, one with two thirds of the other's",
          score_test(Pairs(multi, multi, (), ("model.channels",), fits=_narrower), ABOVE)),
    Claim("norm_starts_no_matter", "draft 5.4; notes 0.8",
          f"norm_starts 3 or 4 makes no difference (within {MARGIN_DB} dB).", "arms that differ in norm_starts only",
          score_test(Pairs(lambda m: m.norm_starts == 3, lambda m: m.norm_starts == 4, (), ("model.norm_starts",)),
                     SAME)),
    Claim("standard_hop_dearer", "notes, compared models (2nn)", "A hop of n_fft / 2 costs more than n_fft / 4.",
          "arms that differ in hop_ratio only",
          cost_test(Pairs(HOP.second, HOP.first, HOP.may), "macs_per_s", "MACs per second of audio")),
    Claim("standard_hop_better", "notes, compared models (2nn)",
          "A hop of n_fft / 2 scores higher than n_fft / 4 for its time resolution.",
          "arms that differ in hop_ratio only", score_test(HOP, ABOVE)),
    Claim("higher_rate_helps", "notes, performance gap", "Several resolutions gain from a higher learning rate.",
          "arms of several resolutions that differ in optimiser.lr only", score_test(_more("optimiser.lr"), ABOVE)),
    Claim("longer_warmup_helps", "notes, performance gap", "Several resolutions gain from a longer warm-up.",
          "arms of several resolutions that differ in schedule.warmup only",
          score_test(_more("schedule.warmup"), ABOVE)),
    Claim("repitch_hurts", "notes, performance gap",
          "Several resolutions gain when repitch is left out of the augmentations.",
          "arms of several resolutions that differ in the augmentation only, with and without repitch",
          score_test(Pairs(multi, multi, (), ("augment",), settings=lambda a, b: _repitches(b) and not _repitches(a)),
                     ABOVE)),
    Claim("wider_helps", "notes, performance gap",
          "A third more channels (24 to 32) closes the gap: they score higher.",
          "arms of several resolutions that differ in channels only, one with four thirds of the other's",
          score_test(Pairs(multi, multi, (), ("model.channels",), fits=lambda a, b: 3 * a.channels == 4 * b.channels),
                     ABOVE)),
)
# fmt: on
