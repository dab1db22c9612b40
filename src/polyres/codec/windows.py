"""Process long signals in windows with context, joined by cross-fades."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from polyres.core.errors import ConfigError, InputError

Tensors = dict[str, Tensor]
"""Name to `[B, X, time, ...]`; axis 2 is time, a whole number of items per step."""

Runner = Callable[[Tensors], Tensors]


@dataclass(frozen=True)
class WindowPlan:
    """Where windows lie on a signal of known length: all full unless the signal is shorter than one.

    Neighbours overlap by at least twice the context. One hands over to the next in the middle of what they share, so
    that all that is kept has the context around it, or the end of the signal.
    """

    total: int  # steps of the signal, >= 1
    window: int  # longest window in steps
    context: int  # steps needed on each side of what is kept, >= 0
    fade: int = 0  # steps on each side of a handover over which the next one is faded in, 0 to context

    def __post_init__(self) -> None:
        """Refuse what cannot be planned."""
        if self.total < 1:
            raise InputError("the signal has 0 samples; nothing to code")
        if self.context < 0 or self.window <= 2 * self.context:
            raise ConfigError(
                f"a window of {self.window} steps has no room between two contexts of {self.context}; "
                "make the window longer"
            )
        if not 0 <= self.fade <= self.context:
            raise ConfigError(f"a fade of {self.fade} steps is not possible; choose 0 to the context {self.context}")

    @property
    def count(self) -> int:
        """Number of windows."""
        rest = max(0, self.total - self.window)
        return 1 + -(-rest // (self.window - 2 * self.context))

    def start(self, number: int) -> int:
        """First step of a window."""
        return min(number * (self.window - 2 * self.context), max(0, self.total - self.window))

    def stop(self, number: int) -> int:
        """Step after the last one of a window."""
        return min(self.start(number) + self.window, self.total)

    def handover(self, number: int) -> int:
        """Step at which a window gives way to the next; the end of the signal for the last."""
        if number == self.count - 1:
            return self.total
        return (self.start(number + 1) + self.stop(number)) // 2


class WindowJoin:
    """Runs windows of a stream and joins what they give."""

    def __init__(self, runner: Runner, plan: WindowPlan, done: Callable[[], None] | None = None) -> None:
        self._runner, self._plan, self._done = runner, plan, done
        self._held: Tensors = {}
        self._held_start = 0
        self._held_stop = 0
        self._number = 0
        self._tail: Tensors = {}

    def push(self, block: Tensors, steps: int) -> list[Tensors]:
        """Take the next `steps` steps and return what is finished, in order."""
        self._held = {name: torch.cat([self._held[name], new], 2) if self._held else new for name, new in block.items()}
        self._held_stop += steps
        finished: list[Tensors] = []
        while self._number < self._plan.count and self._plan.stop(self._number) <= self._held_stop:
            finished.append(self._run())
        return finished

    def _run(self) -> Tensors:
        """Run the next window and return what it completes."""
        plan, number = self._plan, self._number
        start, stop = plan.start(number), plan.stop(number)
        output = self._runner(_cut(self._held, self._held_start, self._held_stop, (start, stop)))
        first, last = number == 0, number == plan.count - 1
        low = 0 if first else plan.handover(number - 1) - plan.fade
        high = plan.total if last else plan.handover(number) + plan.fade
        kept = _cut(output, start, stop, (low, high), whole=False)
        if self._tail:
            kept = {name: _faded(self._tail[name], value) for name, value in kept.items()}
        split = 0 if last else 2 * plan.fade
        items = {name: split * (output[name].shape[2] // (stop - start)) for name in kept}
        self._tail = {name: value[:, :, value.shape[2] - items[name] :] for name, value in kept.items() if items[name]}
        self._number += 1
        if not last:
            needed = plan.start(self._number)
            self._held = _cut(self._held, self._held_start, self._held_stop, (needed, self._held_stop))
            self._held_start = needed
        if self._done is not None:
            self._done()
        return {name: value[:, :, : value.shape[2] - items[name]] for name, value in kept.items()}


def _cut(tensors: Tensors, start: int, stop: int, wanted: tuple[int, int], whole: bool = True) -> Tensors:
    """Cut steps out of tensors that cover the steps start to stop; with `whole` they must do so exactly."""
    parts = {}
    for name, value in tensors.items():
        rate, rest = divmod(value.shape[2], stop - start)
        if rate == 0 or (whole and rest):
            raise InputError(f"{name!r} has {value.shape[2]} items in {stop - start} steps; a multiple is needed")
        parts[name] = value[:, :, (wanted[0] - start) * rate : (wanted[1] - start) * rate]
    return parts


def _faded(tail: Tensor, value: Tensor) -> Tensor:
    """Fade from the end of one window into the beginning of the next, by equal steps."""
    size = tail.shape[2]
    ramp = (torch.arange(size, dtype=torch.float32, device=value.device) + 0.5) / size
    weight = ramp.reshape(-1, *[1] * (value.ndim - 3)).to(value.dtype)
    return torch.cat([torch.lerp(tail, value[:, :, :size], weight), value[:, :, size:]], dim=2)
