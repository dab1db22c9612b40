from __future__ import annotations

import pytest
import torch

from polyres.core.errors import ConfigError
from polyres.models.separator import SeparatorConfig
from polyres.training.separation import SeparationTask, TrainConfig
from polyres.training.supervision import branch_shares

SMALL = SeparatorConfig.from_dict(
    {"n_fft": [512, 1024], "channels": 4, "wave_branch": False, "head": "mask", "transformer": {"kind": "none"}}
)


def test_resolutions_share_a_source_equally():
    assert branch_shares(SMALL).equal(torch.full((2, 4), 0.5))


def test_resolutions_that_a_source_may_not_use_do_not_count():
    allowed = {"kind": "source_weights", "allowed": {"drums": [512], "bass": [1024]}}
    shares = branch_shares(SMALL.with_values({"output": allowed}))
    assert shares.tolist() == [[1.0, 0.0, 0.5, 0.5], [0.0, 1.0, 0.5, 0.5]]


@pytest.mark.parametrize("kind", ["mean", "weights", "conv", "unet", "progressive", "band_weights", "gated", "sum"])
def test_averages_are_supervised(kind: str):
    assert branch_shares(SMALL.with_values({"output": {"kind": kind}})).shape == (2, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"wave_branch": True}, r"the wave branch adds to them; set loss.branch_weight to 0 or model.wave_branch to"),
        ({"head": "mapping", "output": {"kind": "sum"}}, r"output fusion 'sum' puts stems together from parts"),
        ({"output": {"kind": "unet_notes"}}, r"output fusion 'unet_notes' puts stems together from parts"),
    ],
)
def test_parts_are_not_supervised(changes, message: str):
    with pytest.raises(ConfigError, match=message):
        branch_shares(SMALL.with_values(changes))


def test_a_recipe_that_asks_for_it_is_refused_at_once(recipe):
    with pytest.raises(ConfigError, match=r"loss.branch_weight needs branches that give whole stems"):
        TrainConfig.from_yaml(recipe, ["loss.branch_weight=0.5", "model.wave_branch=true"])


def test_the_loss_of_every_resolution_is_added(recipe):
    stems = torch.randn(2, 4, 2, 4000, generator=torch.Generator().manual_seed(0))
    plain, deep = (SeparationTask(TrainConfig.from_yaml(recipe, [f"loss.branch_weight={w}"])) for w in (0.0, 0.5))
    model = plain.build_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
    total, terms = plain.losses(model, stems)
    deep_total, deep_terms = deep.losses(model, stems)
    waves = model(stems.sum(dim=1), None, True)[1]
    by_hand = [(waves[:, r] - stems).abs().mean().item() for r in range(2)]
    assert set(terms) == {"l1"}
    assert set(deep_terms) == {"l1", "l1@512", "l1@1024"}
    assert [deep_terms[f"l1@{n}"].item() for n in (512, 1024)] == pytest.approx(by_hand, rel=1e-5)
    assert by_hand[0] != pytest.approx(by_hand[1], rel=1e-4)
    assert deep_total.item() == pytest.approx(total.item() + 0.5 * sum(by_hand) / 2, rel=1e-5)
    deep_total.backward()
    assert all(p.grad is not None for p in model.branches.parameters())
