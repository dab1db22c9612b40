"""Which arms of a study can be compared: by what their models and recipes differ in, and by how long they trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from polyres.analysis.paper_data import LENGTH_KEYS, Arm, PaperStudy
from polyres.core.config import diff
from polyres.models.separator import SeparatorConfig
from polyres.models.variants import VARIANTS

EQUAL_STEPS, EQUAL_TIME = "equal steps", "equal time"
TIME_TOLERANCE = 0.15
RESOLUTION_KEYS = ("model.n_fft",)
FUSION_KEYS = ("model.output", "model.bottleneck")
METHOD_KEYS = (*RESOLUTION_KEYS, *FUSION_KEYS, "model.transformer", "model.wave_branch", "model.hop")
"""What tells the methods of the family from one another, besides their width."""

Wanted = Callable[[SeparatorConfig], bool]


def differences(first: Arm, second: Arm) -> list[str]:
    """Return the dotted keys in which two arms differ, `model.…` or of the recipe, but for how long they train.

    Args:
        first: an arm with a model.
        second: another.
    """
    if first.model is None or second.model is None:
        return []
    found = [f"model.{key}" for key in diff(first.model, second.model)]
    keys = dict.fromkeys((*first.training, *second.training))
    found += [key for key in keys if key not in LENGTH_KEYS and first.training.get(key) != second.training.get(key)]
    if len(first.model.n_fft) == 1 or len(second.model.n_fft) == 1:
        # What is done with one resolution alone makes no difference.
        found = [key for key in found if not key.startswith(FUSION_KEYS)]
    return found


def basis(first: Arm, second: Arm) -> str | None:
    """Return on what footing two arms trained: equal steps or equal time, else None.

    Args:
        first: an arm.
        second: another.
    """
    if all(first.training.get(key) == second.training.get(key) for key in LENGTH_KEYS):
        return EQUAL_STEPS if first.training.get("epochs") is not None else EQUAL_TIME
    times = first.cost("train_s"), second.cost("train_s")
    if times[0] and times[1] and abs(times[0] - times[1]) <= TIME_TOLERANCE * max(times[0], times[1]):
        return EQUAL_TIME
    return None


def matches(
    studies: Sequence[PaperStudy], first: Wanted, second: Wanted, may_differ: Sequence[str], must: Sequence[str] = ()
) -> Iterator[tuple[PaperStudy, Arm, Arm]]:
    """Yield pairs of arms of one study that differ in nothing but what is allowed.

    Args:
        studies: to look through.
        first: says whether a model can be the first of a pair.
        second: the same of the second.
        may_differ: beginnings of the dotted keys in which the two may differ.
        must: beginnings of which each must tell them apart.
    """
    for study in studies:
        ready = [arm for arm in study.arms if arm.model is not None]
        for one in (arm for arm in ready if arm.model is not None and first(arm.model)):
            for other in (arm for arm in ready if arm.model is not None and second(arm.model)):
                found = differences(one, other)
                if one is other or basis(one, other) is None:
                    continue
                allowed = all(key.startswith((*may_differ, *must)) for key in found)
                if allowed and all(any(key.startswith(start) for key in found) for start in must):
                    yield study, one, other


def families(study: PaperStudy, free: Sequence[str]) -> list[list[Arm]]:
    """Group the arms of a study that differ in nothing but some keys; groups of one are left out.

    Args:
        study: whose arms.
        free: beginnings of those keys.
    """
    groups: list[list[Arm]] = []
    for arm in (arm for arm in study.arms if arm.model is not None):
        for group in groups:
            # One resolution fuses nothing, so it may go with two arms that do not go with each other.
            if all(_differ_only(one, arm, free) for one in group):
                group.append(arm)
                break
        else:
            groups.append([arm])
    return [group for group in groups if len(group) > 1]


def _differ_only(first: Arm, second: Arm, free: Sequence[str]) -> bool:
    same = all(key.startswith(tuple(free)) for key in differences(first, second))
    return same and basis(first, second) is not None


def method_of(model: SeparatorConfig) -> str | None:
    """Return the row of the table of variants that a model is built like, whatever its width and head; None if none.

    Args:
        model: its config.
    """

    def shape(config: SeparatorConfig) -> tuple[object, ...]:
        fusions = (config.bottleneck.kind, config.output.kind) if len(config.n_fft) > 1 else ()
        return (config.n_fft, config.wave_branch, config.transformer.kind, *fusions)

    known = {shape(row): name for name, row in reversed(VARIANTS.items()) if not name.startswith("htdemucs")}
    if shape(model) == shape(VARIANTS["htdemucs_48"]):
        return "htdemucs"
    return known.get(shape(model))


def resolutions_text(model: SeparatorConfig | None) -> str:
    """Return the window lengths of a model in a few words."""
    return "–" if model is None else " ".join(map(str, model.n_fft))
