"""`python -m wegen.wegen_model` is the `wegen` command."""

import sys

from .cli import main

sys.exit(main())
