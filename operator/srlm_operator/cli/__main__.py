"""`python -m srlm_operator.cli`."""

import sys

from . import main

sys.exit(main())
