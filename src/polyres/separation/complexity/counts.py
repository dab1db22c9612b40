"""Size and cost of a model: parameters and multiply-accumulates, as a whole, by kind of operation and by part.

One multiply-accumulate (MAC) is one multiplication and one addition. Counted are convolutions, linear layers, the
products inside attention, and Fourier transforms; element-wise work (norms, activations, gates, windows, weighted sums)
is not. A real Fourier transform of n points counts as 2.5 n log2 n operations, half of the 5 n log2 n of a complex one,
and two operations as one MAC: 1.25 n log2 n MACs per frame, forward or inverse.

Source: Frigo & Johnson 2005, "The design and implementation of FFTW3", section III (5 n log2 n, 2.5 n log2 n).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedOperatorException,
)
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from polyres.separation.bag import Bag
from polyres.separation.model import Separator

KINDS: Mapping[str, tuple[str, ...]] = {
    "convolutions": ("aten.convolution",),
    "linear layers": ("aten.addmm", "aten.mm"),
    "batched products (attention)": ("aten.bmm", "aten.baddbmm"),
    "Fourier transforms": ("aten._fft_r2c", "aten._fft_c2r", "aten._fft_c2c"),
}
"""Kinds of counted operations, and their names in torch."""

OTHER = "other"
ITSELF = "transforms"
"""Name of what a separator spends outside its parts: the Fourier transforms of its branches."""

ROUNDING_MACS = 0.5


def fft_macs(n_fft: int) -> float:
    """Multiply-accumulates of one real Fourier transform of n points: 1.25 n log2 n."""
    return 1.25 * n_fft * math.log2(n_fft)


def _real_fft(shape: Sequence[int], dim: Sequence[int], *_: Any, out_shape: Any = None) -> float:
    """Operations of `aten._fft_r2c`, from the shape of its input."""
    points = math.prod(shape[axis] for axis in dim)
    return 2 * math.prod(shape) / points * fft_macs(points)


def _inverse_fft(shape: Sequence[int], dim: Sequence[int], *_: Any, out_shape: Sequence[int] = ()) -> float:
    """Operations of `aten._fft_c2r`, from the shape of its output."""
    return _real_fft(out_shape, dim)


def _complex_fft(shape: Sequence[int], dim: Sequence[int], *_: Any, out_shape: Any = None) -> float:
    """Operations of `aten._fft_c2c`: twice those of a real one."""
    return 2 * _real_fft(shape, dim)


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of one call."""

    total: float
    by_kind: dict[str, float]  # by kind of operation; the keys of `KINDS`, and `other` where there are any
    by_module: dict[str, float]


@torch.no_grad()
def count_macs(module: nn.Module, call: Callable[[], Any]) -> Macs:
    """Count the multiply-accumulates of a call.

    `module`: whose parts are told apart by name. `call`: what to count, usually `lambda: module(x)`; it is run once.
    """
    fft: dict[Any, Any] = {
        torch.ops.aten._fft_r2c: _real_fft,
        torch.ops.aten._fft_c2r: _inverse_fft,
        torch.ops.aten._fft_c2c: _complex_fft,
    }
    # Fused attention hides its products; the plain one shows them as matrix products.
    counter = FlopCounterMode(display=False, custom_mapping=fft)
    with sdpa_kernel(SDPBackend.MATH), counter, _watched(module, counter.get_total_flops) as by_module:
        call()
    by_operation = {str(key): value / 2 for key, value in counter.get_flop_counts().get("Global", {}).items()}
    by_kind = {kind: sum(by_operation.pop(name, 0.0) for name in names) for kind, names in KINDS.items()}
    if by_operation:
        by_kind[OTHER] = sum(by_operation.values())
    return Macs(sum(by_kind.values()), by_kind, {name: value / 2 for name, value in by_module.items()})


@contextmanager
def _watched(module: nn.Module, so_far: Callable[[], float]) -> Iterator[dict[str, float]]:
    """Collect what is spent inside every module that is called, by name; methods other than forward go unseen."""
    spent: dict[str, float] = {}
    started: list[float] = []

    def watch(part: nn.Module, name: str) -> Iterator[Any]:
        def begin(*_: Any) -> None:
            started.append(so_far())

        def end(*_: Any) -> None:
            spent[name] = spent.get(name, 0.0) + so_far() - started.pop()

        yield part.register_forward_pre_hook(begin)
        yield part.register_forward_hook(end)

    with ExitStack() as stack:
        for name, part in module.named_modules():
            if name:
                for handle in watch(part, name):
                    stack.callback(handle.remove)
        yield spent


@dataclass(frozen=True)
class Part:
    """One part of a model."""

    name: str  # as in `named_modules`, with the window length of a branch
    parameters: int
    macs: float


@dataclass(frozen=True)
class Cost:
    """What a model weighs and costs."""

    parameters: int
    macs: float
    by_kind: dict[str, float]
    parts: tuple[Part, ...]


def count_parameters(module: nn.Module) -> int:
    """Number of parameters, shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def cost_of(model: Separator | Bag, mix: Tensor, depth: int = 1) -> Cost:
    """Count parameters and multiply-accumulates of a separator.

    `mix`: `[1, C, T]`; only its length and device matter. `depth`: how deep parts are told apart, 1 or more; lists of
    parts do not count as a level. Returns the cost; the parts' parameters and macs sum to the whole.
    """
    macs = _count_shapes(model, mix)
    parts = tuple(_parts(model, ("", model), depth, macs))
    return Cost(count_parameters(model), macs.total, macs.by_kind, parts)


def _count_shapes(model: Separator | Bag, mix: Tensor) -> Macs:
    """Count from shapes alone, which takes neither time nor memory; where values decide what is done, compute."""
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            shape = torch.empty_like(mix)
            return count_macs(model, lambda: model(shape))
    except (DataDependentOutputException, DynamicOutputShapeException, UnsupportedOperatorException):
        return count_macs(model, lambda: model(mix))


def spent_in(name: str, macs: Macs) -> float:
    """What is spent in a module, or in the outermost of its parts that are called where it is not called itself."""
    if not name:
        return macs.total
    if name in macs.by_module:
        return macs.by_module[name]
    inside = {other for other in macs.by_module if other.startswith(f"{name}.")}
    return sum(macs.by_module[other] for other in inside if not any(_outer(other, inside)))


def _outer(name: str, among: set[str]) -> Iterator[bool]:
    """Yield for every module around a module whether it is among those."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield name in among


def _parts(model: nn.Module, named: tuple[str, nn.Module], depth: int, macs: Macs) -> Iterator[Part]:
    """Yield the parts of a module down to a depth, and what it has and spends besides them."""
    name, module = named
    parameters, spent = count_parameters(module), spent_in(name, macs)
    is_list = isinstance(module, nn.ModuleList)
    children = [(f"{name}.{child}" if name else child, part) for child, part in module.named_children()]
    label = _label(model, name)
    if children and (depth > 0 or is_list):
        for child in children:
            yield from _parts(model, child, depth if is_list else depth - 1, macs)
        parameters -= sum(count_parameters(part) for _, part in children)
        spent -= sum(spent_in(child, macs) for child, _ in children)
        label = f"{label} (itself)" if name else ITSELF
    if parameters or spent > ROUNDING_MACS:
        yield Part(label, parameters, max(spent, 0.0))


def _label(model: nn.Module, name: str) -> str:
    """Name of a part with the window length of the branch it belongs to."""
    words = name.split(".")
    if "branches" not in words[:-1]:
        return name
    place = words.index("branches")
    owner = model.get_submodule(".".join(words[:place]))
    if not isinstance(owner, Separator):
        return name
    return f"{name} (n_fft {owner.config.n_fft[int(words[place + 1])]})"
