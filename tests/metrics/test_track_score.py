from __future__ import annotations

import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import polyres.metrics
from polyres.core.errors import InputError
from polyres.metrics import bss as bss_engine
from polyres.metrics.separation import nsdr as nsdr_of_tensors
from polyres.metrics.track_score import bss_eval, framewise_sdr, nsdr
from tests.metrics.museval_oracle import NAMES, museval_scores

WINDOW = 4096


def quantised(wave: np.ndarray, bits: int = 16) -> np.ndarray:
    return np.round(wave * 2 ** (bits - 1)) / 2 ** (bits - 1)


def white(sources: int, channels: int, length: int, seed: int = 0) -> np.ndarray:
    return quantised(0.1 * np.random.default_rng(seed).standard_normal((sources, channels, length)))


def music(sources: int, channels: int, length: int, seed: int = 0) -> np.ndarray:
    """Decaying notes of a few partials with a coloured noise floor: narrow spectra, large dynamics."""
    rng = np.random.default_rng(seed)
    time = np.arange(length) / 44100
    waves = 0.002 * rng.standard_normal((sources, channels, length))
    for source in range(sources):
        for start in range(0, length, 3000):
            since = np.clip(time - start / 44100, 0, None)
            note = sum(np.sin(2 * np.pi * 110 * 2 ** rng.uniform(0, 4) * k * since) / k for k in range(1, 5))
            waves[source] += rng.uniform(0.02, 0.1, (channels, 1)) * note * np.exp(-20 * since) * (since > 0)
    return quantised(np.clip(waves, -0.99, 0.99))


def separated(references: np.ndarray, seed: int = 1, leak: float = 0.2) -> np.ndarray:
    """Leakage from the other sources, a filter, and noise."""
    rng = np.random.default_rng(seed)
    late = np.roll(references, 3, axis=-1)
    late[..., :3] = 0
    leaked = leak * references[::-1] if len(references) > 1 else 0
    return quantised(0.8 * references + 0.15 * late + leaked + 0.01 * rng.standard_normal(references.shape))


def assert_equal_scores(ours: dict, theirs: dict, within_db: float = 1e-4) -> None:
    assert list(ours) == list(NAMES)
    for name in NAMES:
        assert ours[name].shape == theirs[name].shape, name
        # Above 150 dB, what is left below the line is rounding, on both sides.
        wanted, found = np.minimum(theirs[name], 150), np.minimum(ours[name], 150)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=within_db, err_msg=name)


CASES = {
    "white": (white(2, 2, 3 * WINDOW), WINDOW, WINDOW),
    "music": (music(2, 2, 4 * WINDOW), WINDOW, WINDOW),
    "three mono sources": (music(3, 1, 3 * WINDOW), WINDOW, WINDOW),
    "last window incomplete": (white(2, 1, 2 * WINDOW + 1234), WINDOW, WINDOW),
    "overlapping windows": (music(2, 1, 3 * WINDOW + 77), WINDOW, 1500),
    "windows with gaps": (white(2, 1, 3 * WINDOW), 1000, 3000),
    "shorter than a window": (white(2, 1, 3000), WINDOW, WINDOW),
    "shorter than a filter": (white(2, 1, 300), WINDOW, WINDOW),
    "exactly a window": (white(2, 1, WINDOW), WINDOW, WINDOW),
}


@pytest.mark.parametrize("case", CASES)
def test_equal_to_museval(case: str) -> None:
    references, window, hop = CASES[case]
    estimates = separated(references)
    ours = bss_eval(references, estimates, window, hop)
    assert all(np.isfinite(ours[name]).all() for name in NAMES)
    assert_equal_scores(ours, museval_scores(references, estimates, window, hop))


@pytest.mark.slow
def test_equal_to_museval_on_four_stereo_sources_with_its_own_windows() -> None:
    references = music(4, 2, 2 * 44100 + 5000)
    estimates = separated(references)
    assert_equal_scores(bss_eval(references, estimates), museval_scores(references, estimates))


def test_a_single_source_has_no_interference() -> None:
    references = white(1, 2, 2 * WINDOW)
    estimates = separated(references)
    ours = bss_eval(references, estimates, WINDOW, WINDOW)
    assert_equal_scores(ours, museval_scores(references, estimates, WINDOW, WINDOW))
    assert np.isposinf(ours["SIR"]).all()


@pytest.mark.parametrize("side", ["reference", "estimate", "opposite channels"])
def test_windows_with_silence_are_nan_for_all(side: str) -> None:
    references = white(2, 2 if side == "opposite channels" else 1, 3 * WINDOW)
    estimates = separated(references)
    if side == "opposite channels":
        references[1, 1, WINDOW : 2 * WINDOW] = -references[1, 0, WINDOW : 2 * WINDOW]
    else:
        (references if side == "reference" else estimates)[0, :, WINDOW : 2 * WINDOW] = 0
    ours = bss_eval(references, estimates, WINDOW, WINDOW)
    for name in NAMES:
        assert np.array_equal(np.isnan(ours[name]), [[False, True, False]] * 2)
    assert_equal_scores(ours, museval_scores(references, estimates, WINDOW, WINDOW))


@pytest.mark.parametrize("side", [0, 1])
def test_a_source_that_is_silent_throughout_leaves_no_window(side: int) -> None:
    pair = [white(2, 2, 2 * WINDOW), white(2, 2, 2 * WINDOW, seed=1)]
    pair[side][1] = 0
    ours = bss_eval(*pair, WINDOW, WINDOW)
    assert all(np.isnan(ours[name]).all() and ours[name].shape == (2, 2) for name in NAMES)
    assert np.isnan(framewise_sdr(*pair, WINDOW, WINDOW)).all()


def test_one_silent_channel_is_no_silent_source() -> None:
    references = white(2, 2, 2 * WINDOW)
    references[1, 0] = 0
    estimates = separated(references)
    ours = bss_eval(references, estimates, WINDOW, WINDOW)
    # museval adds 2e-16 to the diagonal, which makes the matrix regular.
    assert_equal_scores(ours, museval_scores(references, estimates, WINDOW, WINDOW))


def least_squares_scores(references: np.ndarray, estimates: np.ndarray, window: int) -> dict[str, np.ndarray]:
    """Definition by projection on delayed channels laid out as columns, pseudo-inverse and all."""
    sources, channels, length = references.shape
    reach = bss_engine.FILTER_SAMPLES

    def columns(waves: np.ndarray) -> np.ndarray:
        return np.array([np.pad(wave, (delay, reach - 1 - delay)) for wave in waves for delay in range(reach)]).T

    everything = columns(references.reshape(-1, length))
    scores = {name: np.empty((sources, length // window)) for name in NAMES}
    for source in range(sources):
        target = np.pad(estimates[source], ((0, 0), (0, reach - 1))).T
        full = np.linalg.lstsq(everything, target, rcond=1e-10)[0]
        own = np.linalg.lstsq(columns(references[source]), target, rcond=1e-10)[0]
        for frame in range(length // window):
            span = slice(frame * window, (frame + 1) * window)
            cut = references[..., span]
            true = np.pad(cut[source], ((0, 0), (0, reach - 1))).T
            given = np.pad(estimates[source, :, span], ((0, 0), (0, reach - 1))).T
            spatial = columns(cut[source]) @ own
            whole = columns(cut.reshape(-1, window)) @ full
            pairs = ((true, true - given), (true, spatial - true), (spatial, whole - spatial), (whole, given - whole))
            for name, (above, below) in zip(NAMES, pairs, strict=True):
                scores[name][source, frame] = 10 * np.log10(np.sum(above**2) / np.sum(below**2))
    return scores


SINGULAR = ("left is right in one source", "left is right in all", "half as loud", "the same source twice")


@pytest.fixture
def short_filters():
    """Filters of 64 taps, so that the plain definition stays quick."""
    with mock.patch.object(bss_engine, "FILTER_SAMPLES", 64):
        yield


@pytest.mark.usefixtures("short_filters")
@pytest.mark.parametrize("case", SINGULAR)
def test_singular_references_score_as_the_exact_projection(case: str) -> None:
    references = white(2, 2, 2400)
    estimates = separated(references)
    if case == SINGULAR[0]:
        references[0, 1] = references[0, 0]
    elif case == SINGULAR[1]:
        references[:, 1] = references[:, 0]
    elif case == SINGULAR[2]:
        references = 2 * references
        references[1, 1] = references[1, 0] / 2
    else:
        references[1] = references[0]
    ours = bss_eval(references, estimates, 1200, 1200)
    assert all(np.isfinite(ours[name]).all() for name in NAMES)
    exact = least_squares_scores(references, estimates, 1200)
    assert_equal_scores(ours, exact, within_db=1e-3)


def test_the_same_source_twice_scores_as_in_museval() -> None:
    references = white(1, 1, 3 * WINDOW).repeat(2, axis=0)
    estimates = separated(references)
    estimates[1] = white(1, 1, 3 * WINDOW, seed=9)[0]
    assert_equal_scores(
        bss_eval(references, estimates, WINDOW, WINDOW), museval_scores(references, estimates, WINDOW, WINDOW), 1e-3
    )


@pytest.mark.slow
def test_left_as_right_scores_as_in_museval() -> None:
    references = music(2, 1, 3 * WINDOW).repeat(2, axis=1)
    estimates = separated(references)
    assert_equal_scores(
        bss_eval(references, estimates, WINDOW, WINDOW), museval_scores(references, estimates, WINDOW, WINDOW), 1e-3
    )


@pytest.mark.usefixtures("short_filters")
def test_regular_references_score_as_the_exact_projection() -> None:
    references = music(2, 1, 2400)
    estimates = separated(references)
    ours = bss_eval(references, estimates, 1200, 1200)
    assert_equal_scores(ours, least_squares_scores(references, estimates, 1200), within_db=1e-6)


def test_a_perfect_estimate_is_infinitely_good() -> None:
    references = white(2, 2, 2 * WINDOW)
    ours = bss_eval(references, references.copy(), WINDOW, WINDOW)
    assert np.isposinf(ours["SDR"]).all()
    assert all(ours[name].min() > 200 for name in ("ISR", "SIR", "SAR"))


def test_noise_outside_the_references_is_artefact_and_leakage_is_interference() -> None:
    references = white(2, 1, 4 * WINDOW)
    leaky = references + 0.1 * references[::-1]
    scores = bss_eval(references, leaky, 4 * WINDOW, WINDOW)
    assert scores["SIR"] == pytest.approx(20, abs=0.6)
    assert scores["SAR"].min() > 150
    noisy = references + white(2, 1, 4 * WINDOW, seed=5)
    scores = bss_eval(references, noisy, 4 * WINDOW, WINDOW)
    assert scores["SAR"].max() < 1
    assert scores["SIR"].min() > 8


@given(
    sources=st.integers(1, 3),
    channels=st.integers(1, 2),
    length=st.integers(1, 400),
    window=st.integers(1, 200),
    hop=st.integers(1, 200),
)
def test_sdr_alone_is_the_signal_to_noise_ratio_of_each_window(
    sources: int, channels: int, length: int, window: int, hop: int
) -> None:
    references = white(sources, channels, length)
    estimates = separated(references)
    scores = framewise_sdr(references, estimates, window, hop)
    starts = range(0, length - window + 1, hop) if length > window else [0]
    assert scores.shape == (sources, len(starts))
    for frame, start in enumerate(starts):
        true, given = references[..., start : start + window], estimates[..., start : start + window]
        silent = any((wave.sum(axis=1) == 0).all(axis=-1).any() for wave in (true, given))
        for source in range(sources):
            if silent:
                assert np.isnan(scores[source, frame])
                continue
            error = np.sum((true[source] - given[source]) ** 2)
            wanted = 10 * np.log10(np.sum(true[source] ** 2) / error) if error else np.inf
            assert scores[source, frame] == pytest.approx(wanted, abs=1e-9)


def test_sdr_alone_equals_the_sdr_of_the_full_set() -> None:
    references = music(2, 2, 3 * WINDOW + 50)
    estimates = separated(references)
    np.testing.assert_array_equal(
        framewise_sdr(references, estimates, WINDOW, 3000), bss_eval(references, estimates, WINDOW, 3000)["SDR"]
    )


def test_kinds_and_types_of_input() -> None:
    references = (white(2, 2, 2 * WINDOW) * 32768).astype(np.int16)
    estimates = (separated(references / 32768) * 32768).astype(np.int16)
    whole = bss_eval(references / 32768, estimates / 32768, WINDOW, WINDOW)
    assert_equal_scores(bss_eval(references, estimates, WINDOW, WINDOW), whole, within_db=1e-9)
    tensors = bss_eval(torch.from_numpy(references), torch.from_numpy(estimates), WINDOW, WINDOW)
    assert all(isinstance(values, torch.Tensor) and values.dtype == torch.float64 for values in tensors.values())
    assert_equal_scores({name: values.numpy() for name, values in tensors.items()}, whole, within_db=1e-9)
    frozen = np.ascontiguousarray((references / 32768).transpose(0, 2, 1)).transpose(0, 2, 1)
    frozen.flags.writeable = False
    assert_equal_scores(bss_eval(frozen, estimates / 32768, WINDOW, WINDOW), whole, within_db=1e-9)
    gradient = torch.from_numpy(references / 32768).requires_grad_()
    assert not framewise_sdr(gradient, torch.from_numpy(estimates / 32768), WINDOW, WINDOW).requires_grad


def test_inputs_are_left_as_they_were() -> None:
    references = white(2, 2, 2 * WINDOW)
    estimates = separated(references)
    before = references.copy(), estimates.copy()
    bss_eval(references, estimates, WINDOW, WINDOW)
    framewise_sdr(references, estimates, WINDOW, WINDOW)
    np.testing.assert_array_equal(references, before[0])
    np.testing.assert_array_equal(estimates, before[1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_scores_on_a_gpu_are_those_on_the_cpu() -> None:
    references = music(4, 2, 3 * 44100)
    estimates = separated(references)
    assert_equal_scores(bss_eval(references, estimates, device="cuda"), bss_eval(references, estimates), within_db=1e-6)


@pytest.mark.parametrize("function", [bss_eval, framewise_sdr])
def test_unusable_input_is_refused(function) -> None:
    good = white(2, 2, 1000)
    with pytest.raises(InputError, match=r"shape \[sources, channels, samples\], none of them 0, got \[2, 1000\]"):
        function(good[:, 0], good[:, 0])
    with pytest.raises(InputError, match=r"none of them 0, got \[2, 2, 0\]"):
        function(good[..., :0], good[..., :0])
    with pytest.raises(InputError, match=r"references are \[2, 2, 1000\] but estimates \[1, 2, 1000\]; sources and"):
        function(good, good[:1])
    with pytest.raises(InputError, match=r"references have 1000 samples but estimates 999; cut or pad"):
        function(good, good[..., :999])
    for bad in (np.nan, np.inf):
        broken = good.copy()
        broken[1, 0, 77] = bad
        with pytest.raises(InputError, match="contain NaN or infinite samples"):
            function(good, broken)
    with pytest.raises(InputError, match="type complex128 cannot be scored"):
        function(good + 0j, good + 0j)
    with pytest.raises(InputError, match=r"type torch.bool cannot be scored"):
        function(torch.ones(1, 1, 9) > 0, torch.ones(1, 1, 9) > 0)
    with pytest.raises(InputError, match="window_samples must be a whole number of samples, at least 1, got 0"):
        function(good, good, 0)
    with pytest.raises(InputError, match=r"hop_samples must be a whole number of samples, at least 1, got 0\.5"):
        function(good, good, 10, 0.5)
    with pytest.raises(
        InputError, match="device 'nowhere' cannot be used here; choose cpu or a device of this computer"
    ):
        function(good, good, device="nowhere")


@pytest.mark.parametrize(("least", "size"), [(1, 2), (2, 2), (700, 1024), (1025, 2048), (44611, 46080), (6145, 8192)])
def test_sizes_of_transforms(least: int, size: int) -> None:
    assert bss_engine.fft_size(least) == size


def test_importing_the_functions_loads_no_numeric_library() -> None:
    code = "import sys, polyres.metrics.track_score; print('torch' in sys.modules, 'numpy' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    assert shown.split() == ["False", "False"]


def waves(seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal((3, 2, 5000))


def test_arrays_and_tensors_score_alike() -> None:
    references, estimates = waves(), waves() + 0.1 * waves(1)
    scores = nsdr(references, estimates)
    assert isinstance(scores, np.ndarray)
    assert scores.shape == (3,)
    assert scores == pytest.approx(20, abs=0.2)
    wanted = 10 * np.log10(
        (np.sum(references**2, axis=(1, 2)) + 1e-7) / (np.sum((references - estimates) ** 2, axis=(1, 2)) + 1e-7)
    )
    np.testing.assert_allclose(scores, wanted, rtol=0, atol=1e-12)
    tensors = nsdr(torch.from_numpy(references), torch.from_numpy(estimates))
    assert isinstance(tensors, torch.Tensor)
    torch.testing.assert_close(tensors, torch.from_numpy(wanted))
    torch.testing.assert_close(tensors, nsdr_of_tensors(torch.from_numpy(references), torch.from_numpy(estimates)))


def test_single_precision_is_scored_in_double() -> None:
    references = waves().astype(np.float32)
    assert nsdr(references, references * np.float32(1 + 2**-12)).dtype == np.float64
    assert nsdr(references, references) == pytest.approx(10 * np.log10((np.sum(waves() ** 2, (1, 2)) + 1e-7) / 1e-7))


def test_silence() -> None:
    references = waves()
    assert nsdr(references, np.zeros_like(references)) == pytest.approx(0, abs=1e-5)
    assert nsdr(np.zeros_like(references), references) == pytest.approx(
        10 * np.log10(1e-7 / (np.sum(references**2, axis=(1, 2)) + 1e-7))
    )


@pytest.mark.parametrize("function", [nsdr, framewise_sdr, bss_eval])
def test_unusable_input_of_nsdr_is_refused(function) -> None:
    good = waves()
    with pytest.raises(InputError, match=r"references need the shape \[sources, channels, samples\]"):
        function(good[0], good[0])
    with pytest.raises(InputError, match="references have 5000 samples but estimates 4999"):
        function(good, good[..., :-1])
    broken = good.copy()
    broken[0, 0, 0] = np.nan
    with pytest.raises(InputError, match="contain NaN or infinite samples"):
        function(good, broken)


def test_the_package_names_functions_and_stays_light() -> None:
    assert polyres.metrics.__all__ == ["bss_eval", "framewise_sdr", "nsdr"]
    assert polyres.metrics.bss_eval is bss_eval
    assert polyres.metrics.nsdr is nsdr
    code = (
        "import sys, polyres.metrics.track_score, polyres.metrics as m\n"
        "print('torch' in sys.modules, 'numpy' in sys.modules)\n"
        "import polyres.metrics.catalogue\n"
        "print(callable(m.bss_eval), callable(m.framewise_sdr), callable(m.nsdr))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    assert shown.split() == ["False", "False", "True", "True", "True"]
