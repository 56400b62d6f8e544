"""``python -m fdfa``: the same as the command ``fdfa``."""

from __future__ import annotations

import sys

from fdfa.cli import main

if __name__ == "__main__":
    sys.exit(main())
