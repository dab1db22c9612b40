"""Run `python -m polyres.compat.demucs`."""

from __future__ import annotations

from polyres.core.process import tune_cpu

if __name__ == "__main__":
    tune_cpu()  # before torch is loaded
    from polyres.compat.demucs.separate import main

    main()
