"""The `strata` command: start, watch, ask, trace, verify and evaluate."""

import os
import sys

# Into a file or a pipe, a table would be cut to eighty columns, and ids with it. Read by every console that is made after this.
if not sys.stdout.isatty():
    os.environ.setdefault("COLUMNS", "200")
