"""Studies and ratings to test with."""

from __future__ import annotations

import numpy as np

from polyres.listen.analysis.ratings import Rating
from polyres.listen.analysis.simulate import SimulateOptions, simulate
from polyres.listen.analysis.statistics import Scores
from polyres.listen.design.conditions import plan_for
from polyres.listen.design.files import Attribute, Condition, Design, Kind, ListenStudy, Page

ROLES = (
    ("good", "system"),
    ("fair", "system"),
    ("reference", "reference"),
    ("low", "low_anchor"),
    ("mid", "mid_anchor"),
)


def a_study(kind: Kind = "mushra", pages: int = 6, training: int = 1, design: Design = Design()) -> ListenStudy:  # noqa: B008
    conditions = tuple(Condition(id=f"c{n}", label=label, role=role) for n, (label, role) in enumerate(ROLES))
    if kind in ("ab", "abx"):
        conditions = (*conditions[:2], Condition(id="c5", label="poor"))
    made = tuple(
        Page(
            id=f"p{n}",
            item=f"song{n}/{'drums' if n % 2 else 'bass'}",
            track=f"song{n}",
            stem="drums" if n % 2 else "bass",
            reference=f"audio/open{n}.wav",
            audio={condition.id: f"audio/{condition.id}-{n}.wav" for condition in conditions},
        )
        for n in range(pages + training)
    )
    return ListenStudy(
        name="test",
        title="A test",
        kind=kind,
        attributes=(Attribute(),),
        conditions=conditions,
        pages=made[training:],
        training=made[:training],
        design=design,
    )


def some_ratings(study: ListenStudy, listeners: int = 8, careless: int = 0, seed: int = 0) -> list[Rating]:
    effects = {"good": 70.0, "fair": 60.0}
    return simulate(study, SimulateOptions(listeners=listeners, careless=careless, seed=seed, effects=effects))


def fixed_ratings(study: ListenStudy, listener: str, values: dict[str, float], number: int = 0) -> list[Rating]:
    """Let a listener give every condition the same score on every page."""
    return [
        Rating(listener, listener, trial.page, trial.repeat, name, "quality", values[name], study.kind)
        for trial in plan_for(study, number)
        for name in trial.stimuli
    ]


def normal_scores(
    generator: np.random.Generator, sds: dict[str, float], shape: tuple[int, int, int], effects: list[float]
) -> Scores:
    """Draw scores of which all standard deviations are known."""
    listeners, items, conditions = shape

    def draw(name: str, *size: int) -> np.ndarray:
        return generator.normal(0.0, sds.get(name, 0.0), size)

    values = (
        np.array(effects)
        + draw("listener", listeners, 1, 1)
        + draw("item", 1, items, 1)
        + draw("listener:condition", listeners, 1, conditions)
        + draw("item:condition", 1, items, conditions)
        + draw("residual", listeners, items, conditions)
    )
    names = [tuple(f"{kind}{n}" for n in range(size)) for kind, size in zip("lic", shape, strict=True)]
    return Scores(names[0], names[1], names[2], values)
