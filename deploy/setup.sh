#!/usr/bin/env bash
# Install the pinned closure of constraints.txt and every package of this repository into a virtual environment.
set -euo pipefail
venv="$1"
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check --quiet)
say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }

say "Installing pinned packages into $venv (some minutes the first time)"
# PyTorch's CPU build lies beside pip's other packages on some machines; elsewhere it has an index of its own.
if ! "$venv/bin/python" -c 'import importlib.metadata as m; assert m.version("torch").startswith("2.13.0")' 2>/dev/null; then
  "${pip[@]}" install --no-deps "torch==2.13.0+cpu" 2>/dev/null ||
    "${pip[@]}" install --no-deps "torch==2.13.0+cpu" --index-url "${STRATA_TORCH_INDEX:?set STRATA_TORCH_INDEX to the URL of the CPU index of PyTorch (see pytorch.org, Get Started, CPU)}"
fi
# The file is the whole closure, so no resolver runs, and the CUDA builds that vLLM would pull in stay out.
"${pip[@]}" install --no-deps -r constraints.txt

say "Installing this repository's packages"
packages=()
for manifest in libs/*/pyproject.toml services/*/pyproject.toml; do packages+=(-e "$(dirname "$manifest")"); done
"${pip[@]}" install --no-deps --no-build-isolation "${packages[@]}"
