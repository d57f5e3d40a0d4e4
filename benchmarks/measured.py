"""Collect the measured training throughput from benchmarks/results for `eztorch-sce plan`.

    python benchmarks/measured.py

writes eztorch_sce/planning/measured.json, which is included in the package. Run it after updating benchmark results.
"""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
MEASURED = ROOT / "eztorch_sce" / "planning" / "measured.json"


def collect(results: Path) -> list[dict[str, str | float]]:
    """Return one row per training throughput of this package in a folder of benchmark results."""
    rows: list[dict[str, str | float]] = []
    for file in sorted(results.glob("*.json")):
        content = json.loads(file.read_text(encoding="utf-8"))
        versions = content["versions"]
        hardware = versions.get("gpu", f"cpu {versions.get('cpu')}, {versions.get('threads')} threads")
        rows += [
            {
                "hardware": hardware,
                "workload": row["what"],
                "samples_per_s": row["value"],
                "source": f"benchmarks/results/{file.name}",
            }
            for row in content["rows"]
            if row["who"] == "eztorch_sce" and row["unit"] == "samples/s"
        ]
    return rows


def as_json(rows: list[dict[str, str | float]]) -> str:
    """Return the text of `measured.json`."""
    return json.dumps(rows, indent=1) + "\n"


if __name__ == "__main__":
    MEASURED.write_text(as_json(collect(RESULTS)), encoding="utf-8")
