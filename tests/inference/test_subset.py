"""A separator that listens at some of its resolutions."""

from __future__ import annotations

import pytest
import torch

from polyres.core.errors import ConfigError
from polyres.inference.load import LoadedSeparator
from polyres.models.bag import Bag
from polyres.models.separator import Separator, SeparatorConfig
from polyres.nn.transformer import TransformerConfig

CONFIG = SeparatorConfig(
    n_fft=(512, 1024), channels=4, segment_samples=9000, wave_branch=False, transformer=TransformerConfig(kind="none")
)


def test_only_the_chosen_resolutions_listen() -> None:
    whole = LoadedSeparator(Separator(CONFIG), "two", "cpu", "fp32")
    mix = 0.1 * torch.randn(2, 9000, generator=torch.Generator().manual_seed(0))
    mix -= mix.mean()  # every stem gets the mixture's mean back
    part = whole.listening([1024])
    before = whole.separate(mix, 44100)
    assert part.name == "two"
    assert not torch.allclose(part.separate(mix, 44100)["bass"], before["bass"])
    assert torch.equal(whole.separate(mix, 44100)["bass"], before["bass"])
    assert torch.equal(whole.listening([1024, 512]).separate(mix, 44100)["bass"], before["bass"])
    assert whole.listening([]).separate(mix, 44100)["bass"].abs().max() < 1e-6


def test_unknown_resolutions_and_bags_are_refused() -> None:
    model = Separator(CONFIG)
    with pytest.raises(ConfigError, match="two does not listen at n_fft 4096; it has 512, 1024"):
        LoadedSeparator(model, "two", "cpu", "fp32").listening([4096])
    with pytest.raises(ConfigError, match="bagged is a bag of models"):
        LoadedSeparator(Bag([model]), "bagged", "cpu", "fp32").listening([512])
