#!/usr/bin/env bash
# Install the pinned closure of constraints.txt and every package of this repository into a virtual environment.
set -euo pipefail
venv="$1"
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check --quiet)
# pip unpacks and compiles on one core; several of them unpack side by side, and all is compiled at once at the end.
install=(install --no-deps --no-compile)
say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }

say "Installing pinned packages into $venv (some minutes the first time)"
# PyTorch's CPU build lies beside pip's other packages on some machines; elsewhere it has an index of its own.
install_torch() {
  "$venv/bin/python" -c 'import importlib.metadata as m; assert m.version("torch").startswith("2.13.0")' 2>/dev/null ||
    "${pip[@]}" "${install[@]}" "torch==2.13.0+cpu" 2>/dev/null ||
    "${pip[@]}" "${install[@]}" "torch==2.13.0+cpu" --index-url "${STRATA_TORCH_INDEX:?set STRATA_TORCH_INDEX to the URL of the CPU index of PyTorch (see pytorch.org, Get Started, CPU)}"
}
install_torch &
torch=$!
# The file is the whole closure, so no resolver runs, and the CUDA builds that vLLM would pull in stay out.
grep -v '^torch==' constraints.txt | xargs -P 2 -n 41 "${pip[@]}" "${install[@]}"
wait "$torch"

say "Installing this repository's packages"
packages=()
for manifest in libs/*/pyproject.toml services/*/pyproject.toml; do packages+=(-e "$(dirname "$manifest")"); done
"${pip[@]}" "${install[@]}" --no-build-isolation "${packages[@]}"
# Tests of libraries are never imported. A file that does not compile, such as a template, is no reason to stop.
"$venv/bin/python" -m compileall -q -j 0 -x '/tests?/' "$venv"/lib/python*/site-packages >/dev/null || true
