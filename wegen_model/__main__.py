"""`python -m wegen.wegen_model` is the `wegen` command, as `python -m wegen` is."""

import sys

from ..__main__ import main

sys.exit(main())
