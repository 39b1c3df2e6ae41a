"""Run mypy over every package of the repository, as installed."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def packages() -> list[str]:
    """Return the import names of all packages under libs/ and services/."""
    found = [*ROOT.glob("libs/*/src/*/__init__.py"), *ROOT.glob("services/*/src/*/__init__.py")]
    return sorted({path.parent.name for path in found})


if __name__ == "__main__":
    arguments = [part for name in packages() for part in ("-p", name)]
    sys.exit(subprocess.run([sys.executable, "-m", "mypy", *arguments], cwd=ROOT, check=False).returncode)
