"""Models to start from or to learn from: a weight file, a run folder (its best weights), or a built-in name."""

from __future__ import annotations

from polyres.core.config import diff
from polyres.core.errors import ConfigError, TrainingError, WeightsError
from polyres.models.registry import load_model
from polyres.models.separator import Separator
from polyres.models.weights import fill

MOST_DIFFERENCES = 3


def load_start(name: str, key: str) -> Separator:
    """Load a model that a recipe names.

    Args:
        name: a weight file, a run folder, or a name of `polyres models`.
        key: of the recipe, for messages.

    Returns:
        The separator, in evaluation mode on the CPU.

    Raises:
        TrainingError: if it cannot be loaded, or is several models in one.
    """
    try:
        model = load_model(name)
    except (WeightsError, ConfigError) as error:
        raise TrainingError(f"{key} is {name!r}: {error}") from error
    if not isinstance(model, Separator):
        raise TrainingError(f"{key} is {name!r}, a bag of {len(model.models)} models; give the weights of one model")
    return model


def start_from(model: Separator, name: str) -> None:
    """Give a model the weights that `init` names.

    Args:
        model: filled in place.
        name: a weight file, a run folder, or a name of `polyres models`.

    Raises:
        TrainingError: if they cannot be loaded or are those of another model; names the first tensor that differs.
    """
    source = load_start(name, "init")
    try:
        fill(model, source.state_dict(), name)
    except WeightsError as error:
        differences = diff(source.config, model.config)
        shown = [f"{key} {there!r} there, {here!r} here" for key, (there, here) in differences.items()]
        more = f" and {len(shown) - MOST_DIFFERENCES} more" if len(shown) > MOST_DIFFERENCES else ""
        raise TrainingError(
            f"init does not fit the recipe's model: {error} ({'; '.join(shown[:MOST_DIFFERENCES])}{more})"
        ) from error
