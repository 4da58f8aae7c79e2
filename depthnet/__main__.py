"""``python -m depthnet`` is the command ``depthnet``."""

import sys

from depthnet.cli import main

if __name__ == "__main__":
    sys.exit(main())
