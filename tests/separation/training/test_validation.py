from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyres.datasets.stem_files import most_active_excerpt
from polyres.metrics.separation import nsdr
from polyres.separation.training.validation import Cutting, finished_pieces, score_tracks

SOURCES = ("a", "b")


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def joined(forward, mix: torch.Tensor, cutting: Cutting) -> torch.Tensor:
    return torch.cat([piece for _, piece in finished_pieces(forward, mix, cutting)], dim=-1)


def split(mix: torch.Tensor) -> torch.Tensor:
    """Two "stems": the mixture and its negative half."""
    return torch.stack([mix, -0.5 * mix], dim=1)


@given(
    length=st.integers(1, 300),
    size=st.integers(1, 100),
    overlap=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75]),
    batch_size=st.integers(1, 5),
)
def test_what_needs_no_context_is_independent_of_the_cutting(length: int, size: int, overlap: float, batch_size: int):
    mix = noise(2, length)
    stems = joined(split, mix, Cutting(size, overlap, batch_size))
    torch.testing.assert_close(stems, split(mix[None])[0], atol=1e-5, rtol=1e-5)


@given(length=st.integers(1, 300), size=st.integers(1, 100), overlap=st.sampled_from([0.0, 0.3, 0.9]))
def test_pieces_stand_side_by_side_and_are_no_longer_than_a_segment(length: int, size: int, overlap: float):
    end = 0
    for start, piece in finished_pieces(split, noise(2, length), Cutting(size, overlap)):
        assert start == end
        assert 1 <= piece.shape[-1] <= size
        end = start + piece.shape[-1]
    assert end == length


def test_segments_without_overlap_stand_side_by_side_in_batches():
    seen = []

    def forward(mix: torch.Tensor) -> torch.Tensor:
        seen.append(mix.clone())
        return split(mix)

    mix = torch.arange(1.0, 24.0)[None]
    joined(forward, mix, Cutting(10, 0.0, 2))
    assert [len(batch) for batch in seen] == [2, 1]
    assert torch.cat(seen)[:, 0].flatten().tolist() == [*range(1, 24), *[0] * 7]


def test_overlapping_segments_are_cross_faded():
    def forward(mix: torch.Tensor) -> torch.Tensor:
        """Number the segments of the batch."""
        return torch.arange(1.0, len(mix) + 1).view(-1, 1, 1, 1).expand(-1, 1, 1, mix.shape[-1])

    faded = joined(forward, torch.zeros(1, 6), Cutting(4, 0.5, 8))[0, 0]
    torch.testing.assert_close(faded, torch.tensor([1, 1, (2 + 2) / 3, (1 + 4) / 3, 2, 2]))


def test_scores_by_hand():
    tracks = {"one": noise(2, 2, 500), "two": noise(2, 2, 700, seed=1)}
    tracks["two"][1] = 0
    scores = score_tracks(split, tracks.values(), SOURCES, Cutting(100))
    one = nsdr(tracks["one"], split(tracks["one"].sum(0)[None])[0])
    two = nsdr(tracks["two"], split(tracks["two"].sum(0)[None])[0])
    assert scores["a"] == pytest.approx((one[0] + two[0]).item() / 2)
    assert scores["b"] == pytest.approx(one[1].item())
    assert scores["score"] == pytest.approx((one.mean() + two[0]).item() / 2)


def test_the_score_may_be_the_median_over_the_tracks():
    tracks = [noise(2, 2, 500, seed=seed) for seed in range(3)]
    single = sorted(score_tracks(split, [track], SOURCES, Cutting(100))["score"] for track in tracks)
    median = score_tracks(split, tracks, SOURCES, Cutting(100), average="median")
    assert median["score"] == pytest.approx(single[1])
    assert median["a"] == score_tracks(split, tracks, SOURCES, Cutting(100))["a"]


def split_with_branches(mix: torch.Tensor, active: None, return_branches: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The two "stems", and two resolutions that each give something else."""
    assert active is None
    assert return_branches is True
    return split(mix), torch.stack([split(0.5 * mix), split(mix.flip(1))], dim=1)


@pytest.mark.parametrize("cutting", [Cutting(100), Cutting(120, 0.25, 3)])
def test_scores_of_single_resolutions_by_hand(cutting: Cutting):
    tracks = {"one": noise(2, 2, 500), "two": noise(2, 2, 700, seed=1)}
    tracks["two"][1] = 0
    scores = score_tracks(split_with_branches, tracks.values(), SOURCES, cutting, (512, 1024))
    assert list(scores) == ["score", "a", "b", "a@512", "b@512", "a@1024", "b@1024"]
    alone = {
        name: torch.stack([nsdr(stems, split_with_branches(stems.sum(0)[None], None, True)[1][0, r]) for r in (0, 1)])
        for name, stems in tracks.items()
    }
    for r, n_fft in enumerate((512, 1024)):
        assert scores[f"a@{n_fft}"] == pytest.approx((alone["one"][r, 0] + alone["two"][r, 0]).item() / 2, abs=1e-4)
        assert scores[f"b@{n_fft}"] == pytest.approx(alone["one"][r, 1].item(), abs=1e-4)
    plain = score_tracks(split, tracks.values(), SOURCES, cutting)
    assert {name: scores[name] for name in plain} == pytest.approx(plain)


def test_silent_tracks_and_no_tracks_have_no_score():
    assert score_tracks(split, [], SOURCES, Cutting(100)) == {}
    assert score_tracks(split, [torch.zeros(2, 2, 300)], SOURCES, Cutting(100)) == {}


RATE = 10


def track(*activity: str) -> torch.Tensor:
    """Stems that sound in the seconds marked x."""
    seconds = torch.tensor([[float(mark == "x") for mark in row] for row in activity])
    return seconds.repeat_interleave(RATE, dim=1)[:, None].repeat(1, 2, 1) * 0.5


def start_of(stems: torch.Tensor, excerpt: torch.Tensor) -> int:
    """Return where the excerpt begins, in seconds."""
    assert excerpt.data_ptr() >= stems.data_ptr()
    return (excerpt.data_ptr() - stems.data_ptr()) // stems.element_size() // RATE


def test_excerpt_is_where_most_stems_play():
    stems = track("xxxxx.....xxxxx", "....xxxxxxxxxxx")
    excerpt = most_active_excerpt(stems, 4 * RATE, RATE)
    assert excerpt.shape == (2, 2, 4 * RATE)
    assert start_of(stems, excerpt) in (10, 11)


def test_excerpt_is_central_among_equals():
    stems = track("xxxxxxxxxxx")
    assert start_of(stems, most_active_excerpt(stems, 3 * RATE, RATE)) == 4


def test_quiet_seconds_of_a_loud_stem_do_not_count():
    stems = track("xxxxxxxxxx")
    stems[:, :, 3 * RATE :] *= 1e-3
    assert start_of(stems, most_active_excerpt(stems, 3 * RATE, RATE)) == 0


@given(length=st.integers(1, 60), wanted=st.integers(1, 80))
def test_excerpt_has_the_length_asked_for_or_the_whole_track(length: int, wanted: int):
    stems = noise(2, 2, length)
    assert most_active_excerpt(stems, wanted, RATE).shape[-1] == min(length, wanted)
