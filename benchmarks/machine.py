"""What a measurement was made on."""

import os
import platform
from pathlib import Path


def machine() -> str:
    """Cores and processor, as "2 cores, AMD EPYC"."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} cores, {names[0] if names else platform.processor()}"
