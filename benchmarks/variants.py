"""Size, cost and speed of variants on one segment: parameters, multiply-accumulates, wall time, peak memory.

    python benchmarks/variants.py [--names n w5 htdemucs_24 htdemucs_48 released] [--threads 2] [--repeats 3]

A short form of `polyres complexity`, which says how multiply-accumulates are counted. Each variant runs in a process of
its own.
"""

from __future__ import annotations

import argparse

from polyres.separation.complexity.measure import Request, measure_apart


def main() -> None:
    """Parse the command line, measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="+", default=["released", "htdemucs_48", "htdemucs_24", "n", "w5"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    print("| model | parameters | GMAC per 7.8 s | seconds per 7.8 s | times real time | peak memory |")
    print("|---|---|---|---|---|---|")
    for name in arguments.names:
        request = Request(name, device="cpu", threads=arguments.threads, repeats=arguments.repeats)
        result = measure_apart(request)
        speed = result.speed
        if speed is None:
            parser.error("--repeats must be 1 or more")
        peak = "–" if speed.peak_memory_mib is None else f"{speed.peak_memory_mib:,.0f} MiB"
        print(
            f"| {name} | {result.cost.parameters:,} | {result.cost.macs / 1e9:.1f} | {speed.latency_s:.2f} "
            f"| {1 / speed.real_time_factor:.1f} | {peak} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
