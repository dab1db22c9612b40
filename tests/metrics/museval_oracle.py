"""museval 0.4.1 as the slow oracle of BSSEval: its numbers without its imports."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np

NAMES = ("SDR", "ISR", "SIR", "SAR")


class _Numpy(ModuleType):
    """numpy with the exception under the name that it had before numpy 2."""

    linalg = SimpleNamespace(
        linalg=np.linalg, solve=np.linalg.solve, lstsq=lambda a, b: np.linalg.lstsq(a, b, rcond=None)
    )

    def __getattr__(self, name: str) -> object:
        return getattr(np, name)


def load_museval() -> ModuleType:
    """Load `museval/metrics.py` alone: the package itself asks for an ffmpeg program on import."""
    spec = importlib.util.find_spec("museval")
    assert spec is not None
    assert spec.origin is not None
    inner = importlib.util.spec_from_file_location("museval_metrics", Path(spec.origin).parent / "metrics.py")
    assert inner is not None
    assert inner.loader is not None
    module = importlib.util.module_from_spec(inner)
    inner.loader.exec_module(module)
    module.np = _Numpy("numpy")
    return module


def museval_scores(
    references: np.ndarray, estimates: np.ndarray, window: int = 44100, hop: int = 44100
) -> dict[str, np.ndarray]:
    """Score `[S, C, T]` with the settings of `museval.evaluate`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = load_museval().bss_eval(
            references.transpose(0, 2, 1).astype(np.float64),
            estimates.transpose(0, 2, 1).astype(np.float64),
            window=window,
            hop=hop,
        )
    return dict(zip(NAMES, values[:4], strict=True))
