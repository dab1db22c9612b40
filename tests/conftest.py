"""Settings that all tests share."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

pytest_plugins = ("tests.toy_models", "tests.toy_training")

# The same examples on every run and no time limit per example, so that a slow machine cannot turn a test red.
settings.register_profile("polyres", deadline=None, derandomize=True, max_examples=50, database=None)
settings.load_profile("polyres")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small models are slower with several threads, most of all on a busy machine."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 1
    if torch:
        torch.set_num_threads(1)
    yield
    if torch:
        torch.set_num_threads(before)
