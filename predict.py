"""Predict depth for photographs: the same as ``depthnet predict``; python predict.py --help lists its options."""

import sys

from depthnet.inference.cli import main

if __name__ == "__main__":
    sys.exit(main())
