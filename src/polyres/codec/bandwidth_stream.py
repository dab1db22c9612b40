"""Resample decoded streams to the rate of the file, with bandwidth extension where a generator is given."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from polyres.audio.resample import StreamResampler, Wave, resampled_length
from polyres.codec.bandwidth import BandwidthExtender, extend
from polyres.codec.windows import Tensors, WindowJoin, WindowPlan
from polyres.dsp.overlap import Fifo

WINDOW_HOPS = 768
"""About 4.5 s of 44.1 kHz."""


class BandStream:
    """Resamples a stream and extends its bandwidth in bounded memory.

    Windows begin at frames of the generator and have all the context that it looks at, so that the result does not
    depend on how the stream is cut.
    """

    def __init__(self, network: BandwidthExtender, in_hz: int, out_hz: int, channels: int, length_samples: int) -> None:
        """Start a stream of `length_samples` at `in_hz`, of which samples at `out_hz` come out."""
        self._network, config = network, network.config
        self._hop = config.hop_samples
        self._up = StreamResampler(in_hz, config.sample_rate_hz, channels)
        self._down = StreamResampler(config.sample_rate_hz, out_hz, channels)
        self._left = resampled_length(length_samples, in_hz, config.sample_rate_hz)
        total = -(-self._left // self._hop)
        context = -(-config.context_samples // self._hop)
        plan = WindowPlan(total, max(WINDOW_HOPS, 4 * context), context)
        self._join = WindowJoin(self._run, plan)
        self._fifo = Fifo()

    def push(self, block: Wave) -> Wave:
        """Take a block `[C, n]` float32 and return the samples `[C, m]` that are ready."""
        self._fifo.push(torch.from_numpy(self._up.push(block)))
        return self._down.push(self._extended())

    def finish(self) -> Wave:
        """End the signal and return its rest."""
        self._fifo.push(torch.from_numpy(self._up.finish()))
        rest = self._fifo.length % self._hop
        if rest:
            self._fifo.push(torch.zeros(self._down.channels, self._hop - rest))
        return np.concatenate([self._down.push(self._extended()), self._down.finish()], axis=1)

    def _extended(self) -> Wave:
        """Extend the whole frames that are there."""
        hops = self._fifo.length // self._hop
        done: list[Tensor] = []
        if hops:
            wave = self._fifo.take(hops * self._hop)
            done = [piece["wave"][0] for piece in self._join.push({"wave": wave[None]}, hops)]
        joined = torch.cat(done, dim=-1)[:, : self._left] if done else torch.zeros(self._down.channels, 0)
        self._left -= joined.shape[-1]
        return joined.contiguous().numpy()

    def _run(self, window: Tensors) -> Tensors:
        device = self._network.last.weight.device
        with torch.no_grad():
            return {"wave": extend(self._network, window["wave"].to(device)).cpu()}


def way_out(
    network: BandwidthExtender | None, in_hz: int, out_hz: int, channels: int, length_samples: int
) -> StreamResampler | BandStream:
    """Choose between plain resampling and bandwidth extension for decoded samples on their way to the file's rate."""
    if network is None or out_hz <= in_hz:
        return StreamResampler(in_hz, out_hz, channels)
    return BandStream(network, in_hz, out_hz, channels, length_samples)
