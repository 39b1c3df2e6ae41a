"""Write the Python code of every proto file into the contracts package."""

import shutil
import sys
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto"
INCLUDES = Path(protoc.__file__).parent / "_proto"


def generate(out: Path) -> int:
    """Generate messages, services and type stubs into `out`; return protoc's exit code."""
    shutil.rmtree(out / "strata", ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    files = [str(path.relative_to(PROTO)) for path in sorted(PROTO.rglob("*.proto"))]
    code = protoc.main(
        [
            "protoc",
            f"-I{PROTO}",
            f"-I{INCLUDES}",
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out={out}",
            f"--mypy_grpc_out={out}",
            *files,
        ]
    )
    for folder in sorted((out / "strata").rglob("v1")):
        (folder / "__init__.py").write_text("")
    (out / "strata" / "py.typed").write_text("")
    return int(code)


if __name__ == "__main__":
    sys.exit(generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "libs/contracts/src"))
