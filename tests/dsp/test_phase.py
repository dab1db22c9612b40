"""Phase methods: closed forms, properties of the iterations, and a heap that goes bin by bin."""

from __future__ import annotations

import heapq
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from polyres.core.errors import ConfigError, InputError, UnknownNameError
from polyres.dsp import pghi
from polyres.dsp.framing import FrameTransform, Framing
from polyres.dsp.pghi import integrate_phase, phase_slopes
from polyres.dsp.phase import PHASE_METHODS, reconstruct_framed, reconstruct_phase

NAMES = ["griffin_lim", "fast_griffin_lim", "admm", "pghi", "pghi+fgla"]
RATE_HZ = 16000


def spectrum(wave: Tensor, n_fft: int = 1024, hop: int = 160) -> Tensor:
    window = torch.hann_window(n_fft, dtype=wave.dtype)
    return torch.stft(wave, n_fft, hop, window=window, center=True, return_complex=True)


def convergence_db(wave: Tensor, magnitude: Tensor, n_fft: int = 1024, hop: int = 160) -> float:
    return float(20 * torch.log10((spectrum(wave, n_fft, hop).abs() - magnitude).norm() / magnitude.norm()))


def song(seconds: float = 1.0, seed: int = 0) -> Tensor:
    """Struck strings with vibrato, clicks and a little noise."""
    gen = torch.Generator().manual_seed(seed)
    length = int(seconds * RATE_HZ) // 160 * 160
    time = torch.arange(length, dtype=torch.float64) / RATE_HZ
    wave = 0.003 * torch.randn(length, generator=gen, dtype=torch.float64)
    for number in range(int(4 * seconds)):
        start = number / 4
        pitch = 110 * 2 ** (float(torch.randint(0, 24, (1,), generator=gen)) / 12)
        late = (time - start).clamp_min(0)
        for partial in range(1, 12):
            turns = partial * pitch * (late + 0.002 * torch.sin(2 * torch.pi * 5 * late) / 5)
            wave += (time >= start) * torch.exp(-4 * late) * torch.sin(2 * torch.pi * turns) / partial / 8
    wave[4000::8000] += 0.5
    return wave.float()


def wrapped(turns: Tensor) -> Tensor:
    return (turns - turns.round()).abs()


# -- closed forms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_fft", "hop"), [(1024, 160), (512, 128), (501, 100)])
@pytest.mark.parametrize("place", [20.0, 60.25, 110.4])
def test_the_phase_of_a_sine_runs_on_at_its_frequency(n_fft: int, hop: int, place: float) -> None:
    length = 40 * hop
    frequency = place / n_fft
    wave = torch.cos(2 * torch.pi * (frequency * torch.arange(length, dtype=torch.float64) + 0.1))
    framing = Framing.centred(n_fft, hop, length)
    spectra = FrameTransform(framing, torch.float64).analyse(wave[None])
    turns = integrate_phase(spectra.abs(), framing, torch.zeros(framing.frames, framing.bins, dtype=torch.float64))
    near = slice(round(place) - 1, round(place) + 2)
    error = (turns - spectra.angle() / (2 * torch.pi))[0, 10:-10, near]
    # Up to one constant of the whole; a Hann window is only nearly a Gaussian.
    assert float(wrapped(error - error[0, 1]).max()) < 0.09
    step = wrapped((turns[0, 15, near] - turns[0, 14, near]) - frequency * hop)
    assert float(step.max()) < 0.03


@pytest.mark.parametrize("shift", [0, 37, 100])
def test_the_phase_of_an_impulse_falls_with_its_time(shift: int) -> None:
    n_fft, hop, length = 512, 64, 4096
    wave = torch.zeros(1, length, dtype=torch.float64)
    wave[0, 2048 + shift] = 1
    framing = Framing.centred(n_fft, hop, length)
    spectra = FrameTransform(framing, torch.float64).analyse(wave)
    turns = integrate_phase(spectra.abs(), framing, torch.zeros(framing.frames, framing.bins, dtype=torch.float64))
    frame = 2048 // hop + 1
    error = turns[0, frame - 1 : frame + 2] - spectra[0, frame - 1 : frame + 2].angle() / (2 * torch.pi)
    per_bin = (error[:, 2:-1] - error[:, 1:-2]) - (error[:, 2:-1] - error[:, 1:-2]).round()
    assert float(per_bin.abs().max()) < 0.012  # six samples
    delays = -(turns[0, frame, 2:-1] - turns[0, frame, 1:-2]) % 1 * n_fft
    expected = 2048 + shift - (frame * hop - n_fft // 2)
    assert float((delays - expected).abs().max()) < 8


def test_slopes_of_a_gaussian_chirp_are_exact() -> None:
    """For log-magnitudes of a parabola the differences are exact: a packet centred at bin 40, frame 30."""
    framing = Framing.centred(256, 32, 64 * 32)
    gamma = pghi.HANN_GAMMA * 256**2
    frames, bins = torch.meshgrid(torch.arange(65).double(), torch.arange(129).double(), indexing="ij")
    log = -torch.pi * ((frames - 30) * 32) ** 2 / (2 * gamma) - torch.pi * ((bins - 40) / 256) ** 2 * gamma / 2
    across, along = phase_slopes(log.exp()[None], framing)
    inner = (slice(None), slice(10, 50), slice(30, 50))
    # A Gaussian packet as wide as the window: its phase slopes are half the distance to its middle.
    torch.testing.assert_close(across[inner], ((frames - 30) * 32 / 2 / 256)[None][inner])
    expected = (bins * 32 % 256) / 256 - (bins - 40) / 2 * 32 / 256
    torch.testing.assert_close(along[inner], expected[None][inner])


# -- the tree ---------------------------------------------------------------------------------------------------------


def by_heap(magnitude: Tensor, framing: Framing) -> Tensor:
    """Integrate as the paper does, one bin at a time from a heap; turns `[N, F]`."""
    across, along = (slope[0].tolist() for slope in phase_slopes(magnitude, framing))
    level = magnitude[0].tolist()
    rows, columns = magnitude.shape[1:]
    turns = [[0.0] * columns for _ in range(rows)]
    done = [[False] * columns for _ in range(rows)]
    first = int(magnitude.argmax())
    heap = [(-level[first // columns][first % columns], first // columns, first % columns)]
    done[heap[0][1]][heap[0][2]] = True
    while heap:
        _, n, m = heapq.heappop(heap)
        for a, b in ((n + 1, m), (n - 1, m), (n, m + 1), (n, m - 1)):
            if 0 <= a < rows and 0 <= b < columns and not done[a][b]:
                slope = (a - n) * (along[n][m] + along[a][b]) + (b - m) * (across[n][m] + across[a][b])
                turns[a][b] = turns[n][m] + slope / 2
                done[a][b] = True
                heapq.heappush(heap, (-level[a][b], a, b))
    result = torch.tensor(turns, dtype=torch.float64)
    return result - (result[0, 0])


def test_the_tree_is_as_good_as_the_heap() -> None:
    wave = song(1.0)
    magnitude = spectrum(wave).abs()
    framing = Framing.centred(1024, 160, len(wave))
    turns = by_heap(magnitude.T[None].double(), framing) - torch.arange(513) / 2
    start = torch.polar(magnitude.T[None], (2 * torch.pi * turns[None]).float())
    heap_db = convergence_db(FrameTransform(framing, torch.float32).synthesise(start)[0], magnitude)
    tree_db = convergence_db(reconstruct_phase(magnitude, "pghi", 1024, 160), magnitude)
    assert heap_db < -17
    assert tree_db < heap_db + 0.5


@given(seed=st.integers(0, 10**6), rows=st.integers(1, 12), columns=st.integers(1, 12), levels=st.integers(1, 40))
def test_integrating_a_field_of_slopes_without_rings_gives_the_field(
    seed: int, rows: int, columns: int, levels: int
) -> None:
    """Slopes that belong to a phase give it back along every tree, whatever the magnitudes, equal ones included."""
    gen = torch.Generator().manual_seed(seed)
    magnitude = torch.randint(1, levels + 1, (2, rows, columns), generator=gen).double()
    over_time = torch.rand(2, rows, 1, generator=gen, dtype=torch.float64)
    over_bins = torch.rand(2, 1, columns, generator=gen, dtype=torch.float64)

    def summed(slope: Tensor, dim: int) -> Tensor:
        middle = 0.5 * (slope.narrow(dim, 1, slope.shape[dim] - 1) + slope.narrow(dim, 0, slope.shape[dim] - 1))
        return torch.cat([torch.zeros_like(slope.narrow(dim, 0, 1)), middle], dim).cumsum(dim)

    field = summed(over_time, 1) + summed(over_bins, 2)
    along, across = over_time.expand_as(field), over_bins.expand_as(field)
    turns = pghi._integrate(magnitude, torch.ones_like(magnitude, dtype=torch.bool), across, along)
    error = turns - field
    assert float(wrapped(error - error[:, :1, :1]).max()) < 1e-9


@given(seed=st.integers(0, 10**6), rows=st.integers(1, 7), columns=st.integers(1, 7), silent=st.integers(0, 8))
def test_slopes_are_summed_along_the_maximum_spanning_forest(seed: int, rows: int, columns: int, silent: int) -> None:
    """Against Kruskal's algorithm, with slopes that give another phase along any other tree."""
    gen = torch.Generator().manual_seed(seed)
    count = rows * columns
    magnitude = (torch.randperm(count, generator=gen) + 1.0).double().reshape(1, rows, columns)
    audible = magnitude > silent
    across, along = (torch.rand(1, rows, columns, generator=gen, dtype=torch.float64) for _ in range(2))
    level, down, right = (values.flatten().tolist() for values in (magnitude, along, across))
    links = [(i, i + columns, (down[i] + down[(i + columns) % count]) / 2) for i in range(count - columns)]
    links += [(i, i + 1, (right[i] + right[i + 1]) / 2) for i in range(count - 1) if (i + 1) % columns]
    links = [link for link in links if min(level[link[0]], level[link[1]]) > silent]
    links.sort(key=lambda link: sorted((level[link[0]], level[link[1]])), reverse=True)
    group, phase = list(range(count)), [0.0] * count
    for a, b, step in links:
        if (old := group[b]) != group[a]:
            shift = phase[a] + step - phase[b]
            for i in range(count):
                if group[i] == old:
                    group[i], phase[i] = group[a], phase[i] + shift
    error = (pghi._integrate(magnitude, audible, across, along).flatten() - torch.tensor(phase).double()).tolist()
    for i in range(count):
        turns = error[i] - error[group.index(group[i])]
        assert abs(turns - round(turns)) < 1e-6


def test_sections_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    wave = song(2.0)
    magnitude = spectrum(wave).abs()
    whole = convergence_db(reconstruct_phase(magnitude, "pghi", 1024, 160), magnitude)
    monkeypatch.setattr(pghi, "_SECTION_BINS", 513 * 30)
    in_sections = convergence_db(reconstruct_phase(magnitude, "pghi", 1024, 160), magnitude)
    assert in_sections < whole + 1.5
    monkeypatch.setattr(pghi, "_seam", lambda *_: 0.37)
    assert convergence_db(reconstruct_phase(magnitude, "pghi", 1024, 160), magnitude) > in_sections + 1


# -- going on from a wave that is known -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pghi", "pghi+fgla"])
def test_a_sine_goes_on_at_the_phase_it_had(name: str) -> None:
    framing = Framing.between(1024, 160, 160 * 60)
    wave = torch.sin(2 * torch.pi * 440.3 / RATE_HZ * torch.arange(160 * 60) + 1.1)[None]
    magnitude = FrameTransform(framing, torch.float32).analyse(wave).abs().transpose(1, 2)
    soon = slice(2000, 4000)
    on = reconstruct_framed(magnitude, name, framing, 8, before=wave[:, :2000])
    assert float((on - wave)[:, soon].abs().max()) < 0.25
    alone = reconstruct_framed(magnitude, name, framing, 8)
    assert float((alone - wave)[:, soon].abs().max()) > 0.5


@pytest.mark.parametrize("name", NAMES)
def test_a_wave_that_is_all_known_comes_back(name: str) -> None:
    framing = Framing.between(512, 128, 128 * 40)
    wave = torch.stack([song(0.4)[: 128 * 40], 100 * song(0.4, 1)[: 128 * 40]])
    magnitude = FrameTransform(framing, torch.float32).analyse(wave).abs().transpose(1, 2)
    back = reconstruct_framed(magnitude, name, framing, 4, before=wave)
    assert torch.allclose(back, wave, atol=1e-2 * float(wave.abs().max()))
    nothing = reconstruct_framed(magnitude, name, framing, 4, before=wave[:, :0])
    assert torch.equal(nothing, reconstruct_framed(magnitude, name, framing, 4))


@pytest.mark.parametrize(("name", "loss_db"), [("griffin_lim", 2.5), ("pghi", 1.0), ("pghi+fgla", 3.5)])
def test_windows_that_go_on_from_each_other_leave_no_seam(name: str, loss_db: float) -> None:
    wave = song(4.0)[None]
    framing = Framing.between(1024, 160, wave.shape[-1])
    transform = FrameTransform(framing, torch.float32)
    magnitude = transform.analyse(wave).abs().transpose(1, 2)

    def error_db(found: Tensor, low: int = 0, high: int | None = None) -> float:
        difference = transform.analyse(found).abs().transpose(1, 2) - magnitude
        return float(20 * torch.log10(difference[..., low:high].norm() / magnitude[..., low:high].norm()))

    def in_two(goes_on: bool) -> Tensor:
        middle, overlap = 160 * 200, 160 * 60
        first = reconstruct_framed(magnitude[..., :200], name, Framing.between(1024, 160, middle), 32)
        start = middle - overlap
        before = first[:, start : start + overlap * 3 // 4] if goes_on else None
        rest = Framing.between(1024, 160, wave.shape[-1] - start)
        second = reconstruct_framed(magnitude[..., start // 160 :], name, rest, 32, before=before)
        fade = slice(overlap // 4, overlap * 3 // 4)
        ramp = torch.linspace(0, 1, overlap // 2)
        joint = torch.lerp(first[:, start:][:, fade], second[:, fade], ramp)
        return torch.cat([first[:, : start + fade.start], joint, second[:, fade.stop :]], dim=1)

    whole = error_db(reconstruct_framed(magnitude, name, framing, 32), 140, 200)
    assert error_db(in_two(goes_on=True), 140, 200) < whole + loss_db
    assert error_db(in_two(goes_on=False), 140, 200) > whole + 3


def test_a_wave_before_must_fit() -> None:
    framing = Framing.between(512, 128, 1280)
    magnitude = torch.ones(2, 257, 10)
    with pytest.raises(InputError, match=r"the wave before has shape \(1, 5\); \(2,\) and at most 1280 samples"):
        reconstruct_framed(magnitude, "pghi", framing, before=torch.zeros(1, 5))
    with pytest.raises(InputError, match=r"the wave before has shape \(2, 1281\)"):
        reconstruct_framed(magnitude, "pghi", framing, before=torch.zeros(2, 1281))
    with pytest.raises(InputError, match="the wave before holds NaN or infinity"):
        reconstruct_framed(magnitude, "pghi", framing, before=torch.full((2, 9), torch.nan))


# -- all methods ------------------------------------------------------------------------------------------------------


def test_the_catalogue_holds_the_methods_with_a_word_on_each() -> None:
    assert PHASE_METHODS.names() == NAMES
    assert all(PHASE_METHODS.summary(name) for name in NAMES)


def test_methods_rank_as_published() -> None:
    magnitude = spectrum(song(2.0)).abs()
    score = {name: convergence_db(reconstruct_phase(magnitude, name, 1024, 160, 32), magnitude) for name in NAMES}
    assert score["griffin_lim"] < -12
    assert score["fast_griffin_lim"] < score["griffin_lim"] - 3
    assert score["admm"] < score["griffin_lim"] - 3
    assert score["pghi"] < -18
    assert score["pghi+fgla"] < min(-22, score["fast_griffin_lim"] - 2, score["pghi"] - 2)


@pytest.mark.parametrize("name", ["griffin_lim", "fast_griffin_lim", "admm"])
@given(n_fft=st.integers(16, 200), part=st.floats(0.1, 0.5), extra=st.integers(0, 400), iterations=st.integers(0, 3))
@settings(max_examples=25)
def test_the_true_phase_gives_the_signal_back(name: str, n_fft: int, part: float, extra: int, iterations: int) -> None:
    hop = max(1, int(n_fft * part))
    length = n_fft + extra
    wave = torch.randn(2, 3, length, generator=torch.Generator().manual_seed(extra), dtype=torch.float64)
    true = torch.stack([spectrum(channel, n_fft, hop) for channel in wave])
    back = reconstruct_phase(true.abs(), name, n_fft, hop, iterations, length_samples=length, phase=true.angle())
    torch.testing.assert_close(back, wave, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("framing", [Framing.centred(128, 32, 1000), Framing.between(128, 20, 777)])
def test_griffin_lim_never_gets_worse(framing: Framing) -> None:
    transform = FrameTransform(framing, torch.float64)
    noise = torch.randn(1, framing.length_samples, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    magnitude = transform.analyse(noise).abs()
    weight = torch.full((framing.bins,), 2.0, dtype=torch.float64)
    weight[0] = weight[-1] = 1
    losses = []
    for iterations in range(25):
        wave = reconstruct_framed(magnitude.transpose(1, 2), "griffin_lim", framing, iterations)
        error = transform.analyse(wave).abs() - magnitude
        losses.append(float((weight * error.square()).sum()))
    assert all(after <= before * (1 + 1e-9) for before, after in pairwise(losses))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("name", NAMES)
@given(n_fft=st.integers(4, 300), part=st.floats(0.01, 0.9), frames=st.integers(2, 12), seed=st.integers(0, 99))
@settings(max_examples=20)
def test_any_sizes(name: str, n_fft: int, part: float, frames: int, seed: int) -> None:
    hop = max(1, int(n_fft * part))
    frames += -(-n_fft // (2 * hop))
    magnitude = torch.rand(n_fft // 2 + 1, frames, generator=torch.Generator().manual_seed(seed))
    wave = reconstruct_phase(magnitude, name, n_fft, hop, 2)
    assert wave.shape == (hop * (frames - 1) + n_fft % 2,)
    assert bool(torch.isfinite(wave).all())
    assert float(wave.abs().max()) > 0


@pytest.mark.parametrize("name", NAMES)
def test_items_do_not_depend_on_their_batch(name: str) -> None:
    waves = torch.stack([song(0.5, seed) * 10.0 ** (2 - seed) for seed in range(4)]).reshape(2, 2, -1)
    magnitude = torch.stack([spectrum(pair).abs() for pair in waves])
    together = reconstruct_phase(magnitude, name, 1024, 160, 4)
    alone = reconstruct_phase(magnitude[1, 0], name, 1024, 160, 4)
    assert torch.equal(together[1, 0], alone)
    assert together.shape == waves.shape


def test_a_graph_of_a_batch_is_as_many_graphs() -> None:
    magnitude = torch.stack([spectrum(song(0.5, seed)).abs().T for seed in range(3)])
    framing = Framing.centred(1024, 160, 8000)
    noise = torch.rand(framing.frames, framing.bins, generator=torch.Generator().manual_seed(0))
    together = integrate_phase(magnitude, framing, noise)
    for number, item in enumerate(magnitude.split(1)):
        error = together[number] - integrate_phase(item, framing, noise)[0]
        assert float(wrapped(error - error.flatten()[item.argmax()]).quantile(0.99)) < 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_alone_decides(name: str) -> None:
    magnitude = spectrum(song(0.5)).abs()
    magnitude[200:300] = 0  # too soft for slopes
    torch.manual_seed(1)
    first = reconstruct_phase(magnitude, name, 1024, 160, 3, seed=5)
    state = torch.get_rng_state()
    assert torch.equal(first, reconstruct_phase(magnitude, name, 1024, 160, 3, seed=5))
    assert torch.equal(state, torch.get_rng_state())
    if not name.startswith("pghi"):
        assert not torch.equal(first, reconstruct_phase(magnitude, name, 1024, 160, 3, seed=6))


@pytest.mark.parametrize("name", NAMES)
def test_silence_stays_silent_and_level_does_not_matter(name: str) -> None:
    magnitude = spectrum(song(0.5)).abs()
    assert not bool(reconstruct_phase(torch.zeros_like(magnitude), name, 1024, 160, 2).any())
    usual = reconstruct_phase(magnitude, name, 1024, 160, 2)
    soft = reconstruct_phase(magnitude * 2.0**-70, name, 1024, 160, 2)
    torch.testing.assert_close(soft * 2.0**70, usual, rtol=1e-4, atol=1e-5)


def test_the_last_samples_come_back_where_hops_do_not_fill_the_length() -> None:
    wave = song(0.5)[:7950]
    true = spectrum(wave)
    back = reconstruct_phase(true.abs(), "griffin_lim", 1024, 160, 0, length_samples=7950, phase=true.angle())
    torch.testing.assert_close(back, wave, rtol=0, atol=1e-5)


def test_half_precision_is_widened_and_an_empty_batch_stays_empty() -> None:
    magnitude = spectrum(song(0.5)).abs()
    assert reconstruct_phase(magnitude.half(), "griffin_lim", 1024, 160, 1).dtype == torch.float32
    assert reconstruct_phase(magnitude.new_zeros(0, 513, 20), "pghi+fgla", 1024, 160).shape == (0, 3040)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: m[:-1],
            r"magnitudes have shape \(512, 51\); .* n_fft // 2 \+ 1 = 513 bins is needed for n_fft 1024",
        ),
        (lambda m: m[0], r"magnitudes have shape \(51,\)"),
        (lambda m: m.long(), r"magnitudes are torch.int64; real floating-point numbers are needed"),
        (lambda m: m * 1j, r"magnitudes are torch.complex64; real floating-point numbers are needed"),
        (lambda m: m.log(), r"magnitudes go down to -\d.*; they must be >= 0 \(not decibels, not logarithms\)"),
        (lambda m: m.index_fill(0, torch.tensor([3]), torch.nan), "magnitudes hold NaN or infinity"),
        (lambda m: m / 0, "magnitudes hold NaN or infinity"),
        (lambda m: m[:, :1], "a signal of 0 samples cannot be reflected by 512 samples"),
    ],
)
def test_what_is_no_magnitude_is_refused(change, message: str) -> None:  # type: ignore[no-untyped-def]
    magnitude = spectrum(song(0.5)).abs() + 0.01
    with pytest.raises(InputError, match=message):
        reconstruct_phase(change(magnitude), "griffin_lim", 1024, 160)


def test_wrong_settings_are_refused() -> None:
    magnitude = spectrum(song(0.5)).abs()
    with pytest.raises(UnknownNameError, match="unknown phase method 'grifin_lim'; did you mean 'griffin_lim'"):
        reconstruct_phase(magnitude, "grifin_lim", 1024, 160)
    with pytest.raises(ConfigError, match="iterations is -1; 0 or more is needed"):
        reconstruct_phase(magnitude, "pghi", 1024, 160, -1)
    with pytest.raises(ConfigError, match=r"'pghi\+fgla' makes its own start phase; leave `phase` out"):
        reconstruct_phase(magnitude, "pghi+fgla", 1024, 160, phase=magnitude)
    with pytest.raises(InputError, match=r"start phases have shape \(2,\); that of the magnitudes, \(513, 51\)"):
        reconstruct_phase(magnitude, "admm", 1024, 160, phase=magnitude[0, :2])
    with pytest.raises(InputError, match="magnitudes have 51 frames; 9000 samples make 57 frames of hop_length 160"):
        reconstruct_phase(magnitude, "admm", 1024, 160, length_samples=9000)
    with pytest.raises(InputError, match="hop_length is 1024; 1 to 1023 is possible"):
        reconstruct_phase(magnitude, "admm", 1024, 1024)
