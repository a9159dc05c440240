"""`python -m srlm_stages STAGE`: what stage containers run. The task comes as JSON in SRLM_TASK."""

from __future__ import annotations

import sys

from .run import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
