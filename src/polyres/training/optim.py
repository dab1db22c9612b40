"""Optimisers and schedules by name, groups of parameters with a rate or a decay of their own, averages of weights."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from polyres.core.catalogue import Catalogue
from polyres.core.errors import TrainingError

if TYPE_CHECKING:
    from polyres.training.config import OptimiserConfig, ScheduleConfig


from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

from torch import Tensor

Group = dict[str, Any]
"""A parameter group as torch has it; `initial_lr` is its full rate, `name` what it was matched by."""

OPTIMISERS: Catalogue[torch.optim.Optimizer] = Catalogue("optimiser")
"""Every entry maps (model, groups, OptimiserConfig, fused) to an optimiser of these groups."""


@OPTIMISERS.register("adam", "Adam; weight decay is added to the gradient")
def _adam(model: nn.Module, groups: list[Group], config: OptimiserConfig, fused: bool) -> torch.optim.Optimizer:
    """Build Adam."""
    return torch.optim.Adam(groups, lr=config.lr, betas=config.betas, fused=fused)


@OPTIMISERS.register("adamw", "Adam with decoupled weight decay")
def _adamw(model: nn.Module, groups: list[Group], config: OptimiserConfig, fused: bool) -> torch.optim.Optimizer:
    """Build AdamW."""
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=fused)


@OPTIMISERS.register("sgd", "stochastic gradient descent with momentum (0.9 if not given)")
def _sgd(model: nn.Module, groups: list[Group], config: OptimiserConfig, fused: bool) -> torch.optim.Optimizer:
    """Build SGD."""
    momentum = 0.9 if config.momentum is None else config.momentum
    return torch.optim.SGD(groups, lr=config.lr, momentum=momentum, fused=fused)


@OPTIMISERS.register("muon", "Muon (momentum 0.95 if not given) for the matrices of linear layers, AdamW for the rest")
def _muon(model: nn.Module, groups: list[Group], config: OptimiserConfig, fused: bool) -> torch.optim.Optimizer:
    """Build Muon with AdamW, after finding out whether there is anything for it to do."""
    if not hasattr(torch.optim, "Muon"):
        raise TrainingError(f"optimiser 'muon' needs torch 2.9 or newer and this is {torch.__version__}; use adamw")
    matrices = linear_matrices(model)
    if not matrices:
        raise TrainingError("optimiser 'muon' moves matrices of linear layers and the model has none; use adamw")
    return MuonWithAdamW(groups, matrices, config, fused)


def linear_matrices(model: nn.Module) -> set[nn.Parameter]:
    """Return the matrices that map features to features: weights of linear layers and input projections of attention.

    Tables that are looked up, fusion weights and convolutions are not among them.
    """
    found: set[nn.Parameter] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            linear = isinstance(module, nn.Linear) and name == "weight"
            if parameter.ndim == 2 and (linear or name == "in_proj_weight"):
                found.add(parameter)
    return found


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon for some matrices and AdamW for all other parameters, with one state and one list of groups.

    Muon's step has the size that AdamW's would have, so that one rate and one decay suit both.

    Source: Jordan et al. 2024, Muon: an optimizer for hidden layers; Liu et al. 2025, arXiv:2502.16982 (the size).
    """

    def __init__(self, groups: list[Group], matrices: set[nn.Parameter], config: OptimiserConfig, fused: bool) -> None:
        for_muon = _divided(groups, lambda parameter: parameter in matrices)
        for_adamw = _divided(groups, lambda parameter: parameter not in matrices)
        momentum = 0.95 if config.momentum is None else config.momentum
        muon = torch.optim.Muon(for_muon, lr=config.lr, momentum=momentum, adjust_lr_fn="match_rms_adamw")
        self._inner: list[torch.optim.Optimizer] = [muon]
        if for_adamw:
            self._inner.append(torch.optim.AdamW(for_adamw, lr=config.lr, betas=config.betas, fused=fused))
        super().__init__([group for inner in self._inner for group in inner.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Give both the groups and the state of the whole."""
        start = 0
        for inner in self._inner:
            end = start + len(inner.param_groups)
            inner.param_groups, inner.state = self.param_groups[start:end], self.state
            start = end

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state."""
        super().load_state_dict(state_dict)
        self._share()

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move all parameters by their gradients."""
        if closure is not None:
            with torch.enable_grad():
                closure()
        for inner in self._inner:
            inner.step()


def _divided(groups: list[Group], belongs: Callable[[nn.Parameter], bool]) -> list[Group]:
    """Return the groups with only the parameters that belong; those left empty are dropped."""
    divided = [{**group, "params": [p for p in group["params"] if belongs(p)]} for group in groups]
    return [group for group in divided if group["params"]]


def parameter_groups(model: nn.Module, config: OptimiserConfig) -> list[Group]:
    """Sort a model's parameters into groups with a rate and a decay each.

    A parameter belongs to the first group of the config that its name matches, else to the rest. Without
    `decay_norms`, parameters of one axis (biases, gains of norms, scales of layers) go without decay wherever they are.
    """
    left = dict(model.named_parameters())
    groups: list[Group] = []
    for number, group in enumerate(config.groups):
        taken = [name for name in left if re.search(group.match, name)]
        if not taken:
            parts = ", ".join(dict.fromkeys(name.partition(".")[0] for name in left))
            raise TrainingError(
                f"optimiser.groups.{number}.match is {group.match!r}, which is in no name of a parameter that is "
                f"left; names start with: {parts or '(none is left)'}"
            )
        lr = config.lr if group.lr is None else group.lr
        decay = config.weight_decay if group.weight_decay is None else group.weight_decay
        groups += _by_decay(group.match, [left.pop(name) for name in taken], lr, (decay, config.decay_norms))
    return groups + _by_decay("rest", list(left.values()), config.lr, (config.weight_decay, config.decay_norms))


def _by_decay(name: str, parameters: list[nn.Parameter], lr: float, decay: tuple[float, bool]) -> list[Group]:
    """Make a group, or two where parameters of one axis go without decay."""
    weight_decay, everywhere = decay
    shared = {"lr": lr, "initial_lr": lr, "name": name}
    if everywhere:
        groups = [{**shared, "params": parameters, "weight_decay": weight_decay}]
    else:
        decayed = [parameter for parameter in parameters if parameter.ndim > 1]
        others = [parameter for parameter in parameters if parameter.ndim <= 1]
        groups = [
            {**shared, "params": decayed, "weight_decay": weight_decay},
            {**shared, "params": others, "weight_decay": 0.0},
        ]
    return [group for group in groups if group["params"]]


def build_optimiser(model: nn.Module, config: OptimiserConfig, fused: bool = True) -> torch.optim.Optimizer:
    """Build the optimiser of a model's parameters."""
    return OPTIMISERS.build(config.name, model, parameter_groups(model, config), config, fused)


def set_rates(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Set the rate of every group."""
    for group in optimiser.param_groups:
        group["lr"] = group["initial_lr"] * factor


def rates(optimiser: torch.optim.Optimizer) -> dict[str, float]:
    """Return the rates by what the groups were matched by."""
    return {group["name"]: group["lr"] for group in optimiser.param_groups}


SCHEDULES: Catalogue[float] = Catalogue("schedule")
"""Every entry maps (Place, ScheduleConfig) to a factor on the learning rate, 0 to 1."""


@dataclass(frozen=True)
class Place:
    """A place in a run."""

    progress: float
    """Share of the run that is over, 0 to 1, by steps or by seconds, whichever is further."""
    epoch: int = 0
    """Number of the running epoch, from 0, counted from the start of the run whatever came between."""
    epochs: int | None = None
    """How many epochs the run has, where that is known."""
    reductions: int = 0
    """How often validation has stopped getting better."""


@dataclass
class Plateau:
    """Watches the validation score, and counts how often it stopped rising."""

    best: float | None = None
    waited: int = 0
    """Validations since the best."""
    reductions: int = 0

    def take(self, score: float, patience: int) -> None:
        """Take in the score of a validation."""
        if self.best is None or score > self.best:
            self.best, self.waited = score, 0
            return
        self.waited += 1
        if self.waited > patience:
            self.reductions += 1
            self.waited = 0


@SCHEDULES.register("constant", "warm-up, then the full rate")
def _constant(place: Place, config: ScheduleConfig) -> float:
    """Return the warm-up ramp, then 1."""
    return _ramp(place, config)


@SCHEDULES.register("cosine", "warm-up, then half a cosine down to final_ratio")
def _cosine(place: Place, config: ScheduleConfig) -> float:
    """Return the warm-up ramp, then half a cosine that ends at the final ratio when the run does."""
    if place.progress < config.warmup:
        return _ramp(place, config)
    after = (min(place.progress, 1.0) - config.warmup) / (1.0 - config.warmup)
    return config.final_ratio + (1.0 - config.final_ratio) * _half_cosine(after)


@SCHEDULES.register("cosine_epochs", "by absolute epoch: warmup_epochs, then half a cosine, never below final_ratio")
def _cosine_epochs(place: Place, config: ScheduleConfig) -> float:
    """Return (epoch + 1) / warmup_epochs, then half a cosine over the rest, cut off at the final ratio."""
    if place.epoch < config.warmup_epochs:
        return (place.epoch + 1) / config.warmup_epochs
    rest = max((place.epochs or 0) - config.warmup_epochs, 1)
    return max(config.final_ratio, _half_cosine(min((place.epoch - config.warmup_epochs) / rest, 1.0)))


@SCHEDULES.register("step", "warm-up, then times factor after every so many epochs (every_epochs)")
def _step(place: Place, config: ScheduleConfig) -> float:
    """Return the warm-up ramp times a power of the factor that grows with the epochs."""
    return _ramp(place, config) * _lowered(place.epoch // config.every_epochs, config)


@SCHEDULES.register("plateau", "warm-up, then times factor whenever the score has not risen for patience validations")
def _plateau(place: Place, config: ScheduleConfig) -> float:
    """Return the warm-up ramp times a power of the factor that grows with the reductions."""
    return _ramp(place, config) * _lowered(place.reductions, config)


def _ramp(place: Place, config: ScheduleConfig) -> float:
    """Return the straight line from 0 to 1 of the warm-up, then 1."""
    return place.progress / config.warmup if place.progress < config.warmup else 1.0


def _half_cosine(x: float) -> float:
    """Return the half period of a cosine from 1 at 0 down to 0 at 1."""
    return 0.5 * (1.0 + math.cos(math.pi * x))


def _lowered(times: int, config: ScheduleConfig) -> float:
    """Return the factor applied so many times, but not below the final ratio."""
    return max(config.factor**times, config.final_ratio)


def rate_factor(place: Place, config: ScheduleConfig) -> float:
    """Say by how much the learning rate is multiplied at a place of the run."""
    return SCHEDULES.build(config.name, place, config)


class Ema:
    """Exponential moving average of a model's parameters after every step or epoch, free of start-up bias.

    After t updates it equals `sum_i d^(t-i) w_i / sum_i d^(t-i)`: the first update alone counts fully, so that short
    runs and large decays are not dragged towards the random start.

    Source: the bias correction of Kingma & Ba 2015, section 3, folded into the update.
    """

    def __init__(self, model: nn.Module, decay: float, unit: Literal["step", "epoch"] = "step") -> None:
        self.decay, self.unit = decay, unit
        self.num_updates = 0
        self._names = [name for name, _ in model.named_parameters()]
        self._parameters = [parameter for _, parameter in model.named_parameters()]
        self._averages = [parameter.detach().clone() for parameter in self._parameters]

    @property
    def name(self) -> str:
        """Name in metrics and checkpoints, such as `ema_0.999` or `ema_epoch_0.9`."""
        return f"ema_{self.decay:g}" if self.unit == "step" else f"ema_epoch_{self.decay:g}"

    def length_steps(self, steps_per_epoch: int) -> float:
        """Return over how many steps it averages in the long run."""
        return (steps_per_epoch if self.unit == "epoch" else 1) / (1.0 - self.decay)

    @torch.no_grad()
    def distance(self) -> float:
        """Return the L2 norm of the difference between parameters and averages, relative to that of the parameters."""
        pairs = zip(self._parameters, self._averages, strict=True)
        difference = torch.stack([(p.double() - a.double()).norm() for p, a in pairs]).norm()
        whole = torch.stack([p.double().norm() for p in self._parameters]).norm()
        return (difference / whole).item() if whole > 0 else 0.0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters as they are now."""
        self.num_updates += 1
        share = (1.0 - self.decay) / (1.0 - self.decay**self.num_updates)
        torch._foreach_lerp_(self._averages, [p.detach() for p in self._parameters], share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averages into the model for the length of a `with` block, then the very same weights back."""
        kept = [parameter.detach().clone() for parameter in self._parameters]
        self._write(self._averages)
        try:
            yield
        finally:
            self._write(kept)

    @torch.no_grad()
    def _write(self, values: list[Tensor]) -> None:
        """Copy values into the model's parameters."""
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.copy_(value)

    def state(self) -> dict[str, Tensor]:
        """Return the averages by parameter name."""
        return dict(zip(self._names, self._averages, strict=True))

    def load(self, tensors: Mapping[str, Tensor], num_updates: int) -> None:
        """Continue from a saved state."""
        if set(tensors) != set(self._names):
            odd = sorted(set(tensors) ^ set(self._names))[0]
            raise TrainingError(f"the saved {self.name} does not fit the model (first difference: {odd})")
        for name, average in zip(self._names, self._averages, strict=True):
            if tensors[name].shape != average.shape:
                raise TrainingError(
                    f"the saved {self.name} does not fit the model ({name} has the shape {tuple(tensors[name].shape)} "
                    f"there and {tuple(average.shape)} here)"
                )
            average.copy_(tensors[name])
        self.num_updates = num_updates
