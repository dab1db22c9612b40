"""Settings that all tests share."""

from __future__ import annotations

from hypothesis import settings

# The same examples on every run and no time limit per example, so that a slow machine cannot turn a test red.
settings.register_profile("polyres", deadline=None, derandomize=True, max_examples=50, database=None)
settings.load_profile("polyres")
