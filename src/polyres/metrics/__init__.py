"""Numbers about audio; they know nothing of models. `bss_eval`, `framewise_sdr` and `nsdr` are the public ones.

Everything else is reached by name: `polyres.metrics.catalogue.METRICS`. Importing this loads no numeric library.
"""

from __future__ import annotations

from polyres.metrics.track_score import bss_eval, framewise_sdr, nsdr

__all__ = ["bss_eval", "framewise_sdr", "nsdr"]
