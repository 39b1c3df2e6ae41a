"""The `strata` command: start, watch, ask, trace, verify and evaluate."""
