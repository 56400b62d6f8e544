"""``python -m fdfa``, and ``torchrun -m fdfa``."""

from __future__ import annotations

import os
import sys

from fdfa.cli import main

if __name__ == "__main__":
    status = main()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # pytorch#190489: threads of gloo may abort a process that is done while it exits.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
