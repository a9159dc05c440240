"""`python -m srlm_cli`."""

import sys

from . import main

sys.exit(main())
