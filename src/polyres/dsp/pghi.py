"""Phase gradient heap integration: the phase that a magnitude spectrogram implies, without iterations.

The logarithm of a Gaussian-windowed spectrogram tells the slopes of its phase. They are summed along a tree that
leads from loud bins to soft ones. The original grows the tree bin by bin from a heap, which is Prim's algorithm for
the maximum spanning tree; here all parts of the tree grow at once (Borůvka's algorithm), which a tensor library does
in a few passes over all bins, on a CPU or a GPU and for a whole batch.

Source: Průša, Balazs & Søndergaard, "A noniterative method for reconstruction of phase from STFT magnitude",
IEEE/ACM TASLP 2017.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from polyres.dsp.framing import Framing

HANN_GAMMA = 0.25645
"""Time-frequency ratio of the Gaussian nearest to a Hann window, per squared window length."""

TOLERANCE = 1e-6
"""Share of an item's largest magnitude below which the phase is left to chance."""

# Bins integrated at a time; bounds the memory to a few hundred megabytes.
_SECTION_BINS = 1 << 22


def integrate_phase(magnitude: Tensor, framing: Framing, noise: Tensor, known: Tensor | None = None) -> Tensor:
    """Derive the phase of Hann-windowed frames from their magnitudes.

    `magnitude`: `[B, N, F]`, >= 0; `noise`: `[N, F]` phases in turns for bins that are too soft to tell; `known`: `[B,
    n, F]` phases in turns of the first n frames, from which those of the others go on; returns phases `[B, N, F]` in
    turns, as `torch.stft` counts them (from the start of the frame). Parts of the spectrogram with silence between them
    each keep an unknown constant.
    """
    batch, frames, bins = magnitude.shape
    tiny = torch.finfo(magnitude.dtype).tiny
    audible = magnitude > (TOLERANCE * magnitude.amax(dim=(1, 2), keepdim=True)).clamp_min(tiny)
    across, along = phase_slopes(magnitude, framing)
    middle = framing.window_start + framing.window_samples / 2
    shift = _wrap(torch.arange(bins, device=magnitude.device, dtype=magnitude.dtype) * (middle / framing.n_fft))
    phase = torch.empty_like(magnitude)
    first = 0
    if known is not None and known.shape[1]:
        first = known.shape[1]
        phase[:, :first] = known + shift
    step = max(2, _SECTION_BINS // (batch * bins))
    for start in range(first, frames, step):
        rows = slice(start, start + step)
        if start == first > 0:
            phase[:, rows] = _go_on(phase[:, first - 1], (magnitude, audible, across, along), rows)
            continue
        part = _integrate(magnitude[:, rows], audible[:, rows], across[:, rows], along[:, rows])
        if start > 0:
            part = part + _seam(phase, part, magnitude, along, start)
        phase[:, rows] = part
    turned = phase - shift
    if known is not None:
        turned[:, :first] = known
        audible = audible.clone()
        audible[:, :first] = True
    return torch.where(audible, turned, noise)


def phase_slopes(magnitude: Tensor, framing: Framing) -> tuple[Tensor, Tensor]:
    """Read the slopes of the phase, counted from the middle of each frame, off the logarithm of the magnitude.

    `magnitude`: `[B, N, F]`, >= 0; returns turns per bin and turns per frame, both `[B, N, F]`; the second less whole
    turns.
    """
    n_fft, hop = framing.n_fft, framing.hop_length
    gamma = HANN_GAMMA * framing.window_samples**2
    log = magnitude.clamp_min(torch.finfo(magnitude.dtype).tiny).log()
    ends = F.pad(log.transpose(1, 2), (1, 1), mode="replicate").transpose(1, 2)
    over_time = ends[:, 2:] - ends[:, :-2]
    # The spectrum of a real signal is even around its first and last bin, so its slope there is 0.
    over_bins = F.pad(log[..., 2:] - log[..., :-2], (1, 1))
    bins = torch.arange(magnitude.shape[-1], device=magnitude.device)
    carrier = (bins * hop % n_fft).to(magnitude.dtype) / n_fft
    across = over_time * (-gamma / (2 * hop * n_fft) / (2 * torch.pi))
    along = over_bins * (hop * n_fft / (2 * gamma) / (2 * torch.pi)) + carrier
    return across, along


def _seam(phase: Tensor, part: Tensor, magnitude: Tensor, along: Tensor, start: int) -> Tensor:
    """Return what a section's phase must be turned by to go on from the section before, at the loudest bin."""
    loudest = magnitude[:, start - 1 : start + 1].amin(dim=1).argmax(dim=-1, keepdim=True)
    step = 0.5 * (along[:, start - 1] + along[:, start]).gather(-1, loudest)
    return (phase[:, start - 1].gather(-1, loudest) + step - part[:, 0].gather(-1, loudest)).unsqueeze(-1)


def _go_on(known: Tensor, fields: tuple[Tensor, Tensor, Tensor, Tensor], rows: slice) -> Tensor:
    """Integrate frames with the frame before them joined first, its bins by the phases it has: `[B, n, F]`."""
    magnitude, audible, across, along = (field[:, rows.start - 1 : rows.stop].clone() for field in fields)
    magnitude[:, 0] = 2 * magnitude.amax(dim=(1, 2))[:, None] + 1
    audible[:, 0] = True
    # Half the sum of two neighbours is the phase between them; alternate signs undo the running sum.
    signs = 1 - 2 * (torch.arange(known.shape[-1], device=known.device) % 2)
    steps = F.pad(2 * _wrap(known.diff(dim=-1)), (1, 0)).double()
    across[:, 0] = (signs * (signs * steps).cumsum(dim=-1)).to(across)
    part = _integrate(magnitude, audible, across, along)
    return (part + (known - part[:, 0])[:, None, :1])[:, 1:]


def _integrate(magnitude: Tensor, audible: Tensor, across: Tensor, along: Tensor) -> Tensor:
    """Sum slopes along a maximum spanning forest of the audible bins; phases `[B, N, F]` in turns."""
    links, parent, offset = _first_round(magnitude, audible, across, along)
    levels: list[tuple[Tensor, Tensor]] = []
    while True:
        label, offset, count = _merge(parent, offset)
        levels.append((label, offset))
        links = _contract(links, label, offset)
        if links[0].numel() == 0:
            break
        parent, offset = _choose(links, count)
    phase = magnitude.new_zeros(count)
    for label, offset in reversed(levels):
        phase = _wrap(phase.index_select(0, label) + offset)
    return phase.reshape(magnitude.shape)


Links = tuple[Tensor, Tensor, Tensor]
"""Links between trees, strongest first: from, to, and the phase of "to" less that of "from" in turns; `[E]` each."""


def _first_round(magnitude: Tensor, audible: Tensor, across: Tensor, along: Tensor) -> tuple[Links, Tensor, Tensor]:
    """Join every bin to its loudest neighbour, which is where its strongest link leads.

    The strength of a link is the magnitude of its softer end, then that of its louder end. Ranks stand in for
    magnitudes: no two are alike, so that the joined bins form no ring. Returns the other links, each bin's neighbour
    `[V]` (itself where none is audible) and its phase relative to that.
    """
    shape, device = magnitude.shape, magnitude.device
    rank = torch.empty(magnitude.numel(), dtype=torch.int64, device=device)
    order = magnitude.flatten().argsort(stable=True)
    rank[order] = torch.arange(magnitude.numel(), device=device)
    rank = torch.where(audible, rank.reshape(shape), -1)
    place = torch.arange(magnitude.numel(), device=device).reshape(shape)
    best = torch.full_like(rank, -1)
    parent, offset = place.clone(), torch.zeros_like(magnitude)
    pairs: list[tuple[tuple[slice, ...], tuple[slice, ...], Tensor]] = []
    for dim, slope in ((1, along), (2, across)):
        size = shape[dim] - 1
        low, high = (slice(None),) * dim + (slice(0, size),), (slice(None),) * dim + (slice(1, size + 1),)
        step = _wrap(0.5 * (slope[low] + slope[high]))
        pairs.append((low, high, step))
        both = audible[low] & audible[high]
        for here, there, turn in ((low, high, -step), (high, low, step)):
            better = both & (rank[there] > best[here])
            best[here] = torch.where(better, rank[there], best[here])
            parent[here] = torch.where(better, place[there], parent[here])
            offset[here] = torch.where(better, turn, offset[here])
    found: list[tuple[Tensor, ...]] = []
    for low, high, step in pairs:
        unused = (parent[low] != place[high]) & (parent[high] != place[low])
        which = (audible[low] & audible[high] & unused).flatten().nonzero().squeeze(1)
        values = (place[low], place[high], step, rank[low], rank[high])
        found.append(tuple(value.flatten().index_select(0, which) for value in values))
    start, end, step, rank_start, rank_end = (torch.cat(parts) for parts in zip(*found, strict=True))
    softer, louder = torch.minimum(rank_start, rank_end), torch.maximum(rank_start, rank_end)
    strongest = (softer * magnitude.numel() + louder).argsort(descending=True)
    links = tuple(part.index_select(0, strongest) for part in (start, end, step))
    return (links[0], links[1], links[2]), parent.flatten(), offset.flatten()


def _choose(links: Links, count: int) -> tuple[Tensor, Tensor]:
    """Find the tree that the strongest link of every tree leads to, and the phase relative to it."""
    start, end, step = links
    number = torch.arange(start.numel(), device=start.device)
    first = number.new_full((count,), start.numel())
    first.scatter_reduce_(0, start, number, "amin")
    first.scatter_reduce_(0, end, number, "amin")
    own = torch.arange(count, device=start.device)
    linked = first < start.numel()
    first = first.clamp_max(start.numel() - 1)
    leads_out = start[first] == own
    parent = torch.where(linked, torch.where(leads_out, end[first], start[first]), own)
    offset = torch.where(linked, torch.where(leads_out, -step[first], step[first]), 0)
    return parent, offset


def _merge(parent: Tensor, offset: Tensor) -> tuple[Tensor, Tensor, int]:
    """Follow parents to the roots, summing the phase; of two that chose each other the first is the root.

    Returns label of the new tree `[V]`, phase relative to its root `[V]`, number of trees.
    """
    own = torch.arange(parent.numel(), device=parent.device)
    root = (parent.index_select(0, parent) == own) & (own <= parent)
    parent, offset = torch.where(root, own, parent), torch.where(root, 0, offset)
    while True:
        further = parent.index_select(0, parent)
        if torch.equal(further, parent):
            break
        offset = _wrap(offset + offset.index_select(0, parent))
        parent = further
    number = root.cumsum(0) - 1
    return number.index_select(0, parent), offset, int(root.sum())


def _contract(links: Links, label: Tensor, offset: Tensor) -> Links:
    """Keep the links between different trees, now between their roots."""
    start, end, step = links
    new_start, new_end = label.index_select(0, start), label.index_select(0, end)
    rest = (new_start != new_end).nonzero().squeeze(1)
    start, end, step = (part.index_select(0, rest) for part in links)
    step = _wrap(offset.index_select(0, start) + step - offset.index_select(0, end))
    return new_start.index_select(0, rest), new_end.index_select(0, rest), step


def _wrap(turns: Tensor) -> Tensor:
    """Wrap phases to one turn."""
    return turns - turns.round()
