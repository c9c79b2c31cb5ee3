"""`python -m wegen.wegen_model` is the `wegen` command."""

import sys

from .cli.main import main

sys.exit(main())
