"""Errors that a user can act on; each carries one line that names the value, what is allowed and the fix."""

from __future__ import annotations


class PolyresError(Exception):
    """Base of every error shown to the user as one line; `exit_code` is the process status it ends with."""

    exit_code: int = 2


class InputError(PolyresError):
    """Audio or a tensor that cannot be used."""


class NoSoundError(InputError):
    """A file that can be read and holds no audio stream, such as a film without sound."""


class OutputError(PolyresError):
    """A result that cannot be written."""


class ConfigError(PolyresError):
    """A setting that is missing, unknown or out of range."""


class UnknownNameError(ConfigError):
    """A name that no catalogue entry has."""


class WeightsError(PolyresError):
    """Weights that cannot be read, or do not fit the model."""


class OfflineError(WeightsError):
    """Weights that would have to be downloaded while the network is out of reach."""


class TrainingError(PolyresError):
    """A training run that cannot start or go on."""


class AnalysisError(PolyresError):
    """A model or a result that cannot be analysed."""
