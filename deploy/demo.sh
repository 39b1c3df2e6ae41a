#!/usr/bin/env bash
# Start the stack, send the samples, show what came back, and stop what was started here.
set -euo pipefail
state="$1"
started=0
finish() { if [ "$started" = 1 ]; then strata down --state "$state"; fi; }
trap finish EXIT
if ! strata status --state "$state" --json >/dev/null 2>&1; then
  started=1
  strata up --detach --state "$state"
fi
strata status --state "$state"
strata demo --state "$state"
