"""Ways to fuse resolutions at the bottleneck, by name: features `[B, R, D, F, N]` on one grid to `[B, D, F, N]`.

`active` holds one 0/1 per resolution: weighted fusions share the weight of absent branches among the rest, the
convolution sees zeros in their place.
"""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F

from polyres.nn.fusion.base import (
    BOTTLENECK_FUSION,
    Fusion,
    FusionConfig,
    FusionShape,
    Setting,
    SoftmaxTable,
    WeightKind,
    favoured_logits,
    keep_weights,
    share_among_active,
)


class BottleneckFusion(Fusion):
    """Base of bottleneck fusions: weights shared by all sources."""

    def __init__(self, sources: int) -> None:
        super().__init__()
        self.sources = sources


@BOTTLENECK_FUSION.register("mean", summary="fixed uniform average")
class BottleneckMean(BottleneckFusion):
    """Uniform average of the present branches."""

    weight_kind: WeightKind = "explicit"
    row: Tensor

    def __init__(self, config: FusionConfig, shape: FusionShape) -> None:
        super().__init__(len(shape.sources))
        count = len(shape.n_fft)
        self.register_buffer("row", torch.full((1, count), 1 / count), persistent=False)

    def weights(self) -> Tensor:
        """Weight of every resolution per source, `[S, R]`."""
        return self.row.expand(self.sources, -1)

    def forward(self, h: Tensor, active: Tensor) -> Tensor:
        """Fuse features `[B, R, D, F, N]` of the resolutions in `active` `[R]` into `[B, D, F, N]`."""
        return torch.einsum("brdfn,r->bdfn", h, share_among_active(self.weights()[:1], active)[0].to(h.dtype))


@BOTTLENECK_FUSION.register("weights", summary="R softmax scalars shared by all sources")
class BottleneckWeights(BottleneckFusion):
    """One softmax weight per resolution."""

    weight_kind: WeightKind = "explicit"
    honours: tuple[Setting, ...] = ("learned", "favour_n_fft")

    def __init__(self, config: FusionConfig, shape: FusionShape) -> None:
        super().__init__(len(shape.sources))
        logits = favoured_logits(config, shape.n_fft)[None]
        self.table = SoftmaxTable(logits, torch.ones_like(logits, dtype=torch.bool), config.learned)

    def weights(self) -> Tensor:
        """Weight of every resolution per source, `[S, R]`."""
        return self.table().expand(self.sources, -1)

    def forward(self, h: Tensor, active: Tensor) -> Tensor:
        """Fuse features `[B, R, D, F, N]` of the resolutions in `active` `[R]` into `[B, D, F, N]`."""
        return torch.einsum("brdfn,r->bdfn", h, share_among_active(self.table(), active)[0].to(h.dtype))


@BOTTLENECK_FUSION.register("band_weights", summary="R softmax scalars per cell along frequency")
class BottleneckBandWeights(BottleneckFusion):
    """One softmax weight per resolution and band, so that long windows may rule the lows and short ones the highs."""

    weight_kind: WeightKind = "explicit"
    honours: tuple[Setting, ...] = ("learned", "favour_n_fft")

    def __init__(self, config: FusionConfig, shape: FusionShape) -> None:
        super().__init__(len(shape.sources))
        logits = favoured_logits(config, shape.n_fft).expand(shape.bins, -1)
        self.table = SoftmaxTable(logits, torch.ones_like(logits, dtype=torch.bool), config.learned)

    def band_weights(self) -> Tensor:
        """Weights `[F, S, R]` of every band, lowest first."""
        return self.table()[:, None].expand(-1, self.sources, -1)

    def weights(self) -> Tensor:
        """Average of the bands' weights, `[S, R]`."""
        return self.band_weights().mean(dim=0)

    def forward(self, h: Tensor, active: Tensor) -> Tensor:
        """Fuse features `[B, R, D, F, N]` of the resolutions in `active` `[R]` into `[B, D, F, N]`."""
        shares = share_among_active(self.table(), active).to(h.dtype)
        parts = (one * shares[:, index, None] for index, one in enumerate(h.unbind(dim=1)))
        return reduce(torch.add, parts)


@BOTTLENECK_FUSION.register("conv", summary="3x3 convolution over all features (a documented negative result)")
class BottleneckConv(BottleneckFusion):
    """Convolution over the stacked features, starting as the mean; costly, and no better than weights."""

    weight_kind: WeightKind = "implicit"
    honours: tuple[Setting, ...] = ("learned", "favour_n_fft")
    kernel: Tensor

    def __init__(self, config: FusionConfig, shape: FusionShape) -> None:
        super().__init__(len(shape.sources))
        width = shape.channels
        kernel = torch.zeros(width, len(shape.n_fft), width, 3, 3)
        kernel[:, :, :, 1, 1] = torch.eye(width)[:, None] * favoured_logits(config, shape.n_fft).softmax(dim=0)[:, None]
        keep_weights(self, "kernel", kernel, config.learned)

    def weights(self) -> Tensor:
        """Share of kernel energy: implicit, not a mixing weight."""
        energy = self.kernel.square().sum(dim=(0, 2, 3, 4))
        return (energy / energy.sum()).expand(self.sources, -1)

    def forward(self, h: Tensor, active: Tensor) -> Tensor:
        """Fuse features `[B, R, D, F, N]` of the resolutions in `active` `[R]` into `[B, D, F, N]`."""
        return F.conv2d((h * active[:, None, None, None]).flatten(1, 2), self.kernel.flatten(1, 2), padding=1)
