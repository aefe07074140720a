"""Times what must answer at once: --help, --version and a recipe error, each as a whole process. Prints medians.

python scripts/bench_start.py
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
RUNS = 11

COMMANDS = {
    "python -c pass (the floor)": ["-c", "pass"],
    "riskva-run --help": ["-m", "riskva.cli", "--help"],
    "riskva-run --version": ["-m", "riskva.cli", "--version"],
    "riskva-run, a typo in a key": ["-m", "riskva.cli", "recipes/sft_lora.yaml", "learning_rat=1e-5"],
}


def seconds(arguments: list[str]) -> float:
    """The wall time of one process, its output thrown away."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=REPOSITORY, capture_output=True, check=False)
    return time.perf_counter() - start


def main() -> None:
    """Run the commands in turn, so that a drift of the machine's speed meets all of them."""
    seen: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(RUNS):
        for name, arguments in COMMANDS.items():
            seen[name].append(seconds(arguments))
    for name, times in seen.items():
        print(f"{name:32} {statistics.median(times):6.3f} s  ({min(times):.3f} to {max(times):.3f})")


if __name__ == "__main__":
    main()
