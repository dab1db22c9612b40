"""Kinds of attention, by name. Adding one means one class here and its case in the test."""

from __future__ import annotations

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from polyres.core.catalogue import Catalogue
from polyres.core.config import Config


class SparseConfig(Config):
    """Which keys a query may see in `sparse` attention."""

    block: PositiveInt = 128  # queries per block; a block sees itself and its two neighbours
    global_tokens: NonNegativeInt = 32  # evenly spread keys that every query sees
    random_tokens: NonNegativeInt = 32  # further keys per block, drawn once from `seed`
    seed: int = 42


ATTENTION: Catalogue[nn.Module] = Catalogue("attention")


@ATTENTION.register("softmax", summary="exact scaled dot-product attention, O(P^2)")
class SoftmaxAttention(nn.Module):
    """Scaled dot-product attention. Source: Vaswani et al. 2017, eq. 1."""

    def __init__(self, sparse: SparseConfig) -> None:
        super().__init__()

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """`[B, H, P, D]` queries, `[B, H, Q, D]` keys and values -> `[B, H, P, D]`."""
        if q.dtype == torch.bfloat16 and q.device.type == "cpu" and not torch.is_grad_enabled():
            return blocked_attention(q, k, v)
        return F.scaled_dot_product_attention(q, k, v)


def blocked_attention(q: Tensor, k: Tensor, v: Tensor, block: int = 128) -> Tensor:
    """Softmax attention by plain matrix products over blocks of queries, whose scores stay in the cache.

    In bfloat16 on a CPU without matrix tiles this takes about two thirds of the time of the fused kernel.

    `q`: queries `[B, H, P, D]`; `k`: keys `[B, H, Q, D]`; `v`: values `[B, H, Q, D]`. Returns `[B, H, P, D]`.
    """
    batch, heads, length, width = q.shape
    out = q.new_empty(batch, length, heads, width).transpose(1, 2)
    keys, v = k.contiguous().transpose(-2, -1), v.contiguous()
    for start in range(0, length, block):
        part = q[:, :, start : start + block] * width**-0.5
        out[:, :, start : start + block] = (part @ keys).softmax(dim=-1) @ v
    return out


@ATTENTION.register("linear", summary="kernel attention with elu+1 features, O(P)")
class LinearAttention(nn.Module):
    """Attention by the feature map elu(x) + 1, linear in the number of tokens.

    Source: Katharopoulos et al. 2020, "Transformers are RNNs", eqs. 4-7.
    """

    def __init__(self, sparse: SparseConfig) -> None:
        super().__init__()

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k = F.elu(q) + 1, F.elu(k) + 1
        k = k / k.shape[-2]
        context = k.transpose(-2, -1) @ v
        weight = q @ k.sum(dim=-2).unsqueeze(-1)
        # Features are positive, but underflow for very negative inputs.
        return (q @ context) / weight.clamp_min(1e-6)


@ATTENTION.register("sparse", summary="blocks of neighbours + global tokens + seeded random tokens, O(P)")
class SparseAttention(nn.Module):
    """Softmax attention over a local window, evenly spread global keys and seeded random keys.

    Source: Zaheer et al. 2020, "Big Bird", section 2; used for music separation by Rouard et al. 2023, section 3.
    """

    def __init__(self, sparse: SparseConfig) -> None:
        super().__init__()
        self.sparse = sparse

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        batch, heads, queries, width = q.shape
        keys = k.shape[-2]
        index, seen = sparse_keys(queries, keys, self.sparse)
        index, seen = index.to(q.device), seen.to(q.device)
        blocks, per_block = index.shape
        q = F.pad(q, (0, 0, 0, blocks * self.sparse.block - queries)).unflatten(2, (blocks, -1))
        picked_k = k[:, :, index.flatten()].unflatten(2, (blocks, per_block))
        picked_v = v[:, :, index.flatten()].unflatten(2, (blocks, per_block))
        out = F.scaled_dot_product_attention(q, picked_k, picked_v, attn_mask=seen[:, None, :])
        return out.flatten(2, 3)[:, :, :queries]


def sparse_keys(queries: int, keys: int, sparse: SparseConfig) -> tuple[Tensor, Tensor]:
    """Keys seen by each block of queries.

    Returns key indices `[blocks, K]` and a mask of the same shape, False where a slot is unused or repeats a key.
    """
    generator = torch.Generator().manual_seed(sparse.seed)
    blocks = -(-queries // sparse.block)
    ratio = keys / queries
    width = max(1, round(3 * sparse.block * ratio))
    starts = ((torch.arange(blocks) - 1) * sparse.block * ratio).round().long().clamp(max=keys - 1)
    local = starts[:, None] + torch.arange(width)
    spread = torch.linspace(0, keys - 1, min(sparse.global_tokens, keys)).round().long().expand(blocks, -1)
    drawn = torch.randint(keys, (blocks, sparse.random_tokens), generator=generator)
    index = torch.cat([local, spread, drawn], dim=1)
    inside = (index >= 0) & (index < keys)
    index = index.clamp(0, keys - 1)
    ordered, order = torch.where(inside, index, keys).sort(dim=1, stable=True)
    first = torch.ones_like(inside)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    seen = torch.zeros_like(inside).scatter(1, order, first) & inside
    return index, seen


class Attention(nn.Module):
    """Multi-head attention with a chosen kernel; parameters as in `torch.nn.MultiheadAttention`.

    `kind`: name in `ATTENTION`; `sparse`: sizes for `sparse`.

    Source: Vaswani et al. 2017, section 3.2.2.
    """

    def __init__(self, kind: str, channels: int, heads: int, sparse: SparseConfig) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * channels))
        self.out_proj = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)
        self.kernel = ATTENTION.build(kind, sparse)

    def forward(self, query: Tensor, memory: Tensor) -> Tensor:
        """`[B, P, D]` queries and `[B, Q, D]` keys/values -> `[B, P, D]`."""
        channels = query.shape[-1]
        if query is memory:
            q, k, v = F.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        else:
            q = F.linear(query, self.in_proj_weight[:channels], self.in_proj_bias[:channels])
            k, v = F.linear(memory, self.in_proj_weight[channels:], self.in_proj_bias[channels:]).chunk(2, dim=-1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        out = self.kernel(q, k, v)
        return self.out_proj(out.transpose(1, 2).flatten(2))
