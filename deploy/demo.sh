#!/usr/bin/env bash
# Start the stack, send the samples, show what came back, and stop what was started here.
set -euo pipefail
state="$1"
started=0
# Two cores serve the model and everything around it here, so the deadlines of the domains are stretched.
export STRATA_DEADLINE_FACTOR="${STRATA_DEADLINE_FACTOR:-4}"
export STRATA_GATEWAY_MAX_WAIT_SECONDS="${STRATA_GATEWAY_MAX_WAIT_SECONDS:-120}"
finish() { if [ "$started" = 1 ]; then strata down --state "$state"; fi; }
trap finish EXIT
if ! strata status --state "$state" --json >/dev/null 2>&1; then
  started=1
  strata up --detach --state "$state"
fi
strata status --state "$state"
strata demo --state "$state"
