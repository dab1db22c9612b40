"""True scores of simulated listeners from the SDR of the excerpts, by one stated rule.

python effects.py mushra/scores.jsonl prints what `polyres listen simulate --effects` takes; with the report it tells
what the analysis made of it: python effects.py mushra/scores.jsonl mushra/report.json
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

RULE = {"quality": 40.0, "interference": 30.0}
POINTS_PER_DB = 10.0


def effects(scores: Path) -> dict[str, dict[str, float]]:
    """Return attribute -> system -> score: 40 (quality) or 30 (interference) plus 10 points per dB of mean SDR."""
    rows = [json.loads(line) for line in scores.read_text().splitlines()]
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["metric"] == "sdr":
            found.setdefault(row["model"], []).append(row["value"])
    return {
        attribute: {name: round(base + POINTS_PER_DB * statistics.mean(values), 1) for name, values in found.items()}
        for attribute, base in RULE.items()
    }


def recovered(truth: dict[str, dict[str, float]], report: Path) -> str:
    """Set the true means and differences beside the intervals of the report, screened listeners left out."""
    made = json.loads(report.read_text())
    lines = ["| attribute | what | true | found | 95 % | inside |", "| --- | --- | ---: | ---: | ---: | --- |"]
    for block in made["blocks"]:
        if not block["screened"] or block["stem"]:
            continue
        known = truth[block["attribute"]]
        told = []
        for line in block["summaries"]:
            label = made["labels"][line["condition"]]
            if label in known:
                told.append((label, known[label], line["mean"], line["low"], line["high"]))
        for pair in block["pairs"]:
            tests = pair["tests"]
            first, second = (made["labels"][tests[name]] for name in ("first", "second"))
            gap = known[first] - known[second]
            told.append((f"{first} − {second}", gap, tests["difference"], tests["low"], tests["high"]))
        for what, true, mean, low, high in told:
            inside = "yes" if low <= true <= high else "**no**"
            cells = [block["attribute"], what, f"{true:.1f}", f"{mean:.1f}", f"{low:.1f} to {high:.1f}", inside]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    true = effects(Path(sys.argv[1]))
    if len(sys.argv) > 2:
        print(recovered(true, Path(sys.argv[2])))
    else:
        print(",".join(f"{attribute}:{name}={value}" for attribute, one in true.items() for name, value in one.items()))
