from __future__ import annotations

import math

import pytest
import torch

from polyres.core.errors import WeightsError
from polyres.separation.bag import Bag
from polyres.separation.model import Separator, SeparatorConfig

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = SeparatorConfig.from_dict(
    {
        "sources": ("a", "b", "c"),
        "n_fft": (512,),
        "channels": 4,
        "segment_samples": 2000,
        "transformer": {"kind": "none"},
    }
)


def models(count: int) -> list[Separator]:
    return [Separator(CONFIG, seed).eval() for seed in range(count)]


MIX = torch.randn(2, 2, 1501, generator=torch.Generator().manual_seed(5))


def test_one_row_per_model_and_one_weight_per_source() -> None:
    one, two = models(2)
    weights = [[1.0, 0.25, 0.0], [3.0, 0.75, 2.0]]
    with torch.no_grad():
        out, first, second = Bag([one, two], weights).eval()(MIX), one(MIX), two(MIX)
    assert torch.allclose(out[:, 0], (first[:, 0] + 3 * second[:, 0]) / 4, atol=1e-6)
    assert torch.allclose(out[:, 1], first[:, 1] / 4 + second[:, 1] * 3 / 4, atol=1e-6)
    assert torch.allclose(out[:, 2], second[:, 2], atol=1e-6)


def test_without_weights_it_is_the_mean_and_order_does_not_matter() -> None:
    members = models(3)
    with torch.no_grad():
        mean = torch.stack([model(MIX) for model in members]).mean(dim=0)
        assert torch.allclose(Bag(members)(MIX), mean, atol=1e-6)
        assert torch.allclose(Bag(members[::-1])(MIX), mean, atol=1e-6)
        assert torch.allclose(Bag(members[:1])(MIX), members[0](MIX), atol=1e-6)


def test_it_says_what_a_separator_says() -> None:
    short = Separator(CONFIG.with_values({"segment_samples": 1500}))
    bag = Bag([models(1)[0], short], [[1, 0, 1], [0, 1, 1]])
    assert (bag.sources, bag.audio_channels, bag.sample_rate_hz) == (("a", "b", "c"), 2, 44100)
    assert bag.segment_samples == 1500
    assert bag.weights == ((1.0, 0.0, 1.0), (0.0, 1.0, 1.0))


def test_models_without_any_weight_are_not_run() -> None:
    one, two = models(2)
    two.forward = lambda mix: pytest.fail("was run")  # type: ignore[assignment,method-assign]
    Bag([one, two], [[1, 1, 1], [0, 0, 0]])(MIX)


def test_a_bag_is_not_empty() -> None:
    with pytest.raises(WeightsError, match="a bag needs 1 or more models; it has 0"):
        Bag([])


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        (
            "sources",
            ("a", "b", "d"),
            r"model 1 of the bag has sources \('a', 'b', 'd'\), model 0 .*; both must agree",
        ),
        ("sample_rate_hz", 48000, "model 1 of the bag has sample_rate_hz 48000, model 0 has 44100"),
        ("audio_channels", 1, "model 1 of the bag has audio_channels 1, model 0 has 2"),
    ],
)
def test_models_must_go_together(key: str, value: object, text: str) -> None:
    with pytest.raises(WeightsError, match=text):
        Bag([*models(1), Separator(CONFIG.with_values({key: value}))])


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ([[1, 1, 1]], r"weights are 1 rows of \[3\] numbers; 2 rows of 3 are needed"),
        ([[1, 1, 1], [1, 1]], r"weights are 2 rows of \[2, 3\] numbers"),
        ([[1, 1, 1], [1, 1, -1]], r"has the weight -1\.0; 0 or more is needed"),
        ([[1, 1, 1], [1, 1, math.nan]], "has the weight nan; 0 or more is needed"),
        ([[1, 0, 1], [1, 0, 1]], "weights for 'b' are all 0; give one model a weight"),
    ],
)
def test_weights_must_fit(weights: list[list[float]], text: str) -> None:
    with pytest.raises(WeightsError, match=text):
        Bag(models(2), weights)
