"""`python -m polyres` does what the `polyres` command does."""

from __future__ import annotations

import sys

from polyres.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
