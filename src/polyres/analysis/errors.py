"""Errors of the analyses."""

from __future__ import annotations

from polyres.core.errors import PolyresError


class AnalysisError(PolyresError):
    """A model or a result that cannot be analysed."""
