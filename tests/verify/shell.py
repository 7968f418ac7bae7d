"""Commands and environments for the thorough tier."""

import hashlib
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
KEPT = ROOT / ".verify"  # what a run of the thorough tier leaves to be looked at
COMMAND = [sys.executable, "-m", "keras_pspnet.cli"]


def call(*command, **options):
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, **options
    )


def run(*command, **options):
    """A command that must succeed; returns what it printed."""
    done = call(*command, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def environment_with(folder, *packages, constraints=True):
    """A Python that has these packages, and all those of this environment behind them."""
    run(sys.executable, "-m", "venv", folder)
    (site,) = folder.glob("lib/python*/site-packages")
    ours = sysconfig.get_path("purelib")
    (site / "behind.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    python = folder / "bin" / "python"
    bounds = ["-c", ROOT / "constraints.txt"] if constraints else []
    run(python, "-m", "pip", "install", "-q", *bounds, *packages)
    return python


def resumed_at(output):
    """[the step at which a run says that it resumes], or [] if it was killed before."""
    marker = "resuming at step "
    return [int(line[len(marker) :].split()[0]) for line in output.splitlines() if marker in line]


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def code_version():
    """Changes with any committed or uncommitted file that the checks depend on."""
    listed = run("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT).split("\n")
    left_out = ("benchmarks/", "docs/")
    kept = [n for n in listed if n and not n.startswith(left_out) and not n.endswith(".md")]
    files = [name for name in sorted(kept) if (ROOT / name).is_file()]
    text = "".join(f"{name} {digest(ROOT / name)}\n" for name in files)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
