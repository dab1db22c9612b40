"""Size, cost and speed of variants on one segment: parameters, multiply-accumulates, wall time, peak memory.

    python benchmarks/variants.py [--names n w5 htdemucs_24 htdemucs_48 released] [--threads 2] [--repeats 3]

Multiply-accumulates are half of what `torch.utils.flop_counter` counts (convolutions, matrix products, attention), plus
the transforms at 2.5 n log2 n real multiplications per frame. Each variant runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from polyres.models.separator import Separator, SeparatorConfig
from polyres.models.variants import VARIANTS
from polyres.nn.transformer import TransformerConfig
from polyres.ops.stft import frame_count

RELEASED = SeparatorConfig(
    dconv_mode=3, inverse="demucs", pad_to_segment=True, transformer=TransformerConfig(bottom_channels=512)
)


def transform_macs(config: SeparatorConfig) -> float:
    """Multiply-accumulates of all forward and inverse transforms of one segment."""
    total = 0.0
    for n_fft in config.n_fft:
        frames = frame_count(config.segment_samples, config.hop_of(n_fft))
        signals = config.audio_channels * (1 + len(config.sources))
        total += signals * frames * 2.5 * n_fft * math.log2(n_fft) / 2
    return total


def child(name: str, threads: int, repeats: int) -> None:
    """Measure one variant and print a line of JSON."""
    torch.set_num_threads(threads)
    config = RELEASED if name == "released" else VARIANTS[name]
    model = Separator(config).eval()
    mix = torch.randn(1, 2, config.segment_samples, generator=torch.Generator().manual_seed(0)) * 0.1
    times = []
    with torch.no_grad():
        model(mix)
        for _ in range(repeats):
            start = time.perf_counter()
            model(mix)
            times.append(time.perf_counter() - start)
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(mix)
    print(
        json.dumps(
            {
                "name": name,
                "parameters": sum(p.numel() for p in model.parameters()),
                "gmac": (counter.get_total_flops() / 2 + transform_macs(config)) / 1e9,
                "seconds": statistics.median(times),
                "audio_s": config.segment_samples / config.sample_rate_hz,
                "peak_mib": peak_mib,
            }
        )
    )


def main() -> None:
    """Parse the command line, measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="+", default=["released", "htdemucs_48", "htdemucs_24", "n", "w5"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.threads, arguments.repeats)
        return
    print("| model | parameters | GMAC per 7.8 s | seconds per 7.8 s | times real time | peak memory |")
    print("|---|---|---|---|---|---|")
    for name in arguments.names:
        command = [sys.executable, __file__, "--child", name]
        command += ["--threads", str(arguments.threads), "--repeats", str(arguments.repeats)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        row = json.loads(done.stdout.splitlines()[-1])
        speed = row["audio_s"] / row["seconds"]
        print(
            f"| {row['name']} | {row['parameters']:,} | {row['gmac']:.1f} | {row['seconds']:.2f} "
            f"| {speed:.1f} | {row['peak_mib']:,.0f} MiB |",
            flush=True,
        )


if __name__ == "__main__":
    main()
