"""The suites `tools` and `generation` of `strata eval`."""
