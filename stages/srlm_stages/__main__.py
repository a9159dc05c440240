"""`python -m srlm_stages STAGE`: what stage containers run. The task comes as JSON in SRLM_TASK."""

from __future__ import annotations

import os
import sys

from .run import EXIT_TERMINATED, main

if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    if code == EXIT_TERMINATED:
        os._exit(code)  # threads that wait for an answer would hold the interpreter up beyond the grace period
    sys.exit(code)
