"""A browser per file of tests, as the pages of listening tests have it."""

from __future__ import annotations

from tests.browser.conftest import browser

__all__ = ["browser"]
