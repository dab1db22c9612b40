"""A perceptual distance: how far apart a frozen network finds two signals, layer by layer."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from polyres.core.errors import ConfigError


class PerceptualDistance(nn.Module):
    """Mean absolute difference of features of a frozen network, each layer relative to its own size.

    Source: Hou et al. 2017, Deep feature consistent variational autoencoder; Johnson et al. 2016, Perceptual losses
    for real-time style transfer. The network is a copy: training what it was copied from does not change it.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str]) -> None:
        """Copy and freeze a network.

        Args:
            network: takes what is compared.
            layers: submodules whose outputs are features, by dotted name.

        Raises:
            ConfigError: if there are none, or the network has no submodule of a name.
        """
        super().__init__()
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        known = dict(self.network.named_modules())
        for name in layers:
            if name not in known or not name:
                raise ConfigError(f"the network has no layer {name!r}; known: {', '.join(list(known)[1:8])} …")
        if not layers:
            raise ConfigError("a perceptual distance needs at least one layer")
        self.layers = tuple(layers)

    def train(self, mode: bool = True) -> PerceptualDistance:
        """Stay in evaluation mode, whatever is around it."""
        return super().train(False)

    def features(self, value: Tensor) -> list[Tensor]:
        """Return what the layers give, in their order in the network."""
        found: list[Tensor] = []
        hooks = [
            self.network.get_submodule(name).register_forward_hook(lambda _, __, output: found.append(output))
            for name in self.layers
        ]
        try:
            self.network(value)
        finally:
            for hook in hooks:
                hook.remove()
        return found

    def forward(self, estimate: Tensor, target: Tensor) -> Tensor:
        """Compare two batches.

        Args:
            estimate: as the network takes it; gradients pass through.
            target: same shape.

        Returns:
            The mean over the layers of the difference, in units of the target's mean absolute deviation; a scalar.
        """
        with torch.no_grad():
            wanted = self.features(target)
        given = self.features(estimate)
        parts = [
            (got - want).abs().mean() / (want - want.mean()).abs().mean().clamp_min(1e-6)
            for got, want in zip(given, wanted, strict=True)
        ]
        return torch.stack(parts).mean()
