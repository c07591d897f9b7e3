"""`./lab bench [part ...]`: the benchmarks, one after another. Each prints ratios that were measured in one run."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    """The command line; the exit code is that of the first part that failed."""
    found = {path.stem: path for path in sorted(HERE.glob("*.py")) if path.name[0] != "_" and path.name != "run.py"}
    parser = argparse.ArgumentParser(prog="./lab bench", description=__doc__)
    parser.add_argument("part", nargs="*", help=f"one of: {', '.join(found)}; without one, all of them")
    arguments = parser.parse_args()
    for name in arguments.part:
        if name not in found:
            print(f"lab: there is no benchmark {name}; there are: {', '.join(found)}", file=sys.stderr)
            return 2
    for name in arguments.part or found:
        print(f"== {name}", flush=True)
        if code := subprocess.run([sys.executable, found[name]], check=False).returncode:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
