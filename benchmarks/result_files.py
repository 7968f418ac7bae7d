"""Read what the benchmarks wrote into benchmarks/results/."""

import json
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def read(name):
    """Return the result NAME.json."""
    return json.loads((RESULTS / f"{name}.json").read_text())
