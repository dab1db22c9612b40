from __future__ import annotations

import re
import sys

import pytest

from polyres.core.errors import ConfigError
from polyres.report.figures import check_matplotlib


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        ((), "pip install 'polyres[figures]'"),
        (("figures", "leave --plots out"), "pip install 'polyres[figures]', or leave --plots out"),
        (("listen", "add --no-figures"), "pip install 'polyres[listen]', or add --no-figures"),
    ],
)
def test_figures_without_matplotlib_are_refused(
    arguments: tuple[str, ...], remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_matplotlib(*arguments)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=f"^figures need matplotlib; install it with {re.escape(remedy)}$"):
        check_matplotlib(*arguments)
