"""Kinds of attention against explicit forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from polyres.core.errors import ConfigError, UnknownNameError
from polyres.nn.attention import ATTENTION, Attention, SparseConfig, sparse_keys

SPARSE = SparseConfig(block=8, global_tokens=4, random_tokens=4)
LENGTHS = [(40, 40), (40, 23), (17, 64), (5, 5), (1, 9), (9, 1), (64, 3), (64, 1)]
kinds = pytest.mark.parametrize("kind", ATTENTION.names())
lengths = pytest.mark.parametrize(("queries", "keys"), LENGTHS)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def inputs(queries: int, keys: int, width: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(2, 3, queries, width), torch.randn(2, 3, keys, width), torch.randn(2, 3, keys, width)


def dense(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None) -> Tensor:
    scores = torch.einsum("bhpd,bhqd->bhpq", q, k) / q.shape[-1] ** 0.5
    if seen is not None:
        scores = scores.masked_fill(~seen, -torch.inf)
    weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
    return torch.einsum("bhpq,bhqd->bhpd", weights, v)


def seen_by_query(queries: int, keys: int, sparse: SparseConfig) -> Tensor:
    """The keys of each block as a dense mask `[P, Q]`; fails where a block counts a key twice."""
    index, used = sparse_keys(queries, keys, sparse)
    mask = torch.zeros(queries, keys, dtype=torch.bool)
    for query in range(queries):
        block = query // sparse.block
        places = index[block][used[block]]
        assert len(set(places.tolist())) == len(places)
        mask[query, places] = True
    return mask


def test_the_three_kinds_are_known_by_name() -> None:
    assert ATTENTION.names() == ["softmax", "linear", "sparse"]
    with pytest.raises(UnknownNameError, match="unknown attention 'linaer'; did you mean 'linear'"):
        ATTENTION.build("linaer", SPARSE)


@lengths
def test_softmax_equals_the_explicit_form(queries: int, keys: int) -> None:
    q, k, v = inputs(queries, keys)
    torch.testing.assert_close(ATTENTION.build("softmax", SPARSE)(q, k, v), dense(q, k, v))


@lengths
def test_linear_equals_the_quadratic_kernel_form(queries: int, keys: int) -> None:
    q, k, v = inputs(queries, keys)

    def feature(x: Tensor) -> Tensor:
        return torch.where(x > 0, x + 1, x.exp())

    weights = torch.einsum("bhpd,bhqd->bhpq", feature(q), feature(k))
    wanted = torch.einsum("bhpq,bhqd->bhpd", weights / weights.sum(-1, keepdim=True), v)
    torch.testing.assert_close(ATTENTION.build("linear", SPARSE)(q, k, v), wanted)


def test_linear_stays_finite_where_its_features_underflow() -> None:
    q, k, v = (x.requires_grad_() for x in inputs(5, 7))
    out = ATTENTION.build("linear", SPARSE)(q - 200, k - 200, v)
    out.sum().backward()
    assert bool(out.isfinite().all())
    assert all(x.grad is not None and bool(x.grad.isfinite().all()) for x in (q, k, v))


@lengths
@pytest.mark.parametrize("sparse", [SPARSE, SparseConfig(block=8, global_tokens=0, random_tokens=0)])
def test_sparse_equals_dense_attention_under_its_mask(queries: int, keys: int, sparse: SparseConfig) -> None:
    q, k, v = inputs(queries, keys)
    mask = seen_by_query(queries, keys, sparse)
    assert bool(mask.any(dim=1).all())
    torch.testing.assert_close(ATTENTION.build("sparse", sparse)(q, k, v), dense(q, k, v, mask))


def test_sparse_that_sees_everything_equals_softmax() -> None:
    q, k, v = inputs(40, 40)
    wide = SparseConfig(block=8, global_tokens=40, random_tokens=0)
    torch.testing.assert_close(ATTENTION.build("sparse", wide)(q, k, v), dense(q, k, v))


@pytest.mark.parametrize("factor", [1, 2, 0.5])
def test_local_window_is_the_block_and_its_two_neighbours(factor: float) -> None:
    keys = int(64 * factor)
    mask = seen_by_query(64, keys, SparseConfig(block=8, global_tokens=0, random_tokens=0))
    for query in range(64):
        block = query // 8
        low, high = max(0, int((block - 1) * 8 * factor)), min(keys, int((block + 2) * 8 * factor))
        assert mask[query].nonzero().flatten().tolist() == list(range(low, high))


def test_global_keys_are_seen_by_all_and_spread_from_first_to_last() -> None:
    mask = seen_by_query(200, 200, SparseConfig(block=8, global_tokens=5, random_tokens=0))
    assert mask.all(dim=0).nonzero().flatten().tolist() == [0, 50, 100, 149, 199]


def test_random_keys_come_from_their_seed_alone() -> None:
    before = torch.get_rng_state()
    first, again = (seen_by_query(300, 300, SparseConfig(block=8, seed=1)) for _ in range(2))
    other = seen_by_query(300, 300, SparseConfig(block=8, seed=2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())
    local = seen_by_query(300, 300, SparseConfig(block=8, random_tokens=0))
    extra = (first & ~local).sum(dim=1).float()
    assert 20 < float(extra.mean()) <= 32


@kinds
@lengths
def test_contract(kind: str, queries: int, keys: int) -> None:
    """Shape, finite values, gradients to all three inputs, items of a batch independent, weights that sum to one."""
    q, k, v = (x.requires_grad_() for x in inputs(queries, keys))
    kernel = ATTENTION.build(kind, SPARSE)
    out = kernel(q, k, v)
    assert out.shape == q.shape
    (out * torch.randn(out.shape)).sum().backward()
    for x in (q, k, v):
        assert x.grad is not None
        assert bool(x.grad.isfinite().all())
        assert bool(x.grad.any()) or (keys == 1 and x is not v)
    torch.testing.assert_close(kernel(q.flip(0), k.flip(0), v.flip(0)), out.flip(0))
    torch.testing.assert_close(kernel(q[:1], k[:1], v[:1]), out[:1])
    ones = kernel(q, k, torch.ones_like(v))
    torch.testing.assert_close(ones, torch.ones_like(q))
    assert not list(kernel.parameters())
    assert not kernel.state_dict()


@pytest.mark.parametrize("own", [True, False])
def test_heads_and_parameters_are_those_of_torch(own: bool) -> None:
    mine, torchs = Attention("softmax", 24, 4, SPARSE), nn.MultiheadAttention(24, 4, batch_first=True)
    torchs.load_state_dict(mine.state_dict())
    query = torch.randn(2, 9, 24)
    memory = query if own else torch.randn(2, 5, 24)
    torch.testing.assert_close(mine(query, memory), torchs(query, memory, memory)[0], atol=1e-6, rtol=1e-5)


@kinds
def test_self_attention_equals_attention_to_a_copy(kind: str) -> None:
    attention, x = Attention(kind, 24, 4, SPARSE), torch.randn(2, 20, 24)
    torch.testing.assert_close(attention(x, x), attention(x, x.clone()), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("key", "value"), [("block", 0), ("global_tokens", -1), ("random_tokens", -1)])
def test_impossible_sizes_are_refused(key: str, value: int) -> None:
    with pytest.raises(ConfigError, match=f"SparseConfig: {key} = {value} is not allowed; allowed: greater than"):
        SparseConfig.from_dict({key: value})
