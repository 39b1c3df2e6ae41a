#!/usr/bin/env bash
# The generated code is what the protos say, and the protos break nobody who reads what is on main.
set -euo pipefail
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
python libs/contracts/generate.py "$fresh" 2>/dev/null
diff -r -x __pycache__ "$fresh/strata" libs/contracts/src/strata || { echo "generated code is stale: make proto" >&2; exit 1; }
base=$(git rev-parse --verify --quiet origin/main || git rev-parse --verify --quiet main || true)
if [ -n "$base" ] && git cat-file -e "$base:proto/buf.yaml" 2>/dev/null; then
  mkdir "$fresh/base"
  git archive "$base" proto | tar -x -C "$fresh/base"
  buf breaking proto --against "$fresh/base/proto"
fi
