"""`python -m srlm_stages STAGE`: what stage containers run. The task comes as JSON in SRLM_TASK."""

from __future__ import annotations

import gc
import os
import signal
import sys

if __name__ == "__main__":  # and not in processes that an engine starts
    # Before the imports, which take seconds: for the first process of a container SIGTERM has no default action, and
    # one that nobody takes is lost.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))

# Importing torch and an engine makes millions of objects that live as long as the process; looking for garbage among
# them at the usual pace doubles the time it takes.
gc.set_threshold(200_000, 50, 50)

from .run import main  # noqa: E402 - after the threshold, see above
from .sources.trust import trust_bundle  # noqa: E402 - the same

if __name__ == "__main__":
    trust_bundle(os.environ)  # before any client is made
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # All is committed and closed. Taking the interpreter down piece by piece costs seconds with an engine in it, and
    # threads that wait for an answer would hold a terminated pod up beyond its grace period.
    os._exit(code)
