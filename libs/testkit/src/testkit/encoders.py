"""A folder of an encoder that is not the installed one: the same model with other weights."""

import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file


def other_encoder(installed: Path, folder: Path) -> Path:
    """Copy the model in `installed` to `folder` with one bias moved, so that its vectors are of a space of their own."""
    shutil.copytree(installed, folder)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("encoder.layer.5.output.LayerNorm.bias"))
    weights[name] = weights[name] + np.float32(0.01)
    save_file(weights, folder / "model.safetensors")
    return folder
