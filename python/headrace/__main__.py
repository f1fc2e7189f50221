"""`python -m headrace` is the command `headrace`."""

import sys

from headrace.cli.start import start

if __name__ == "__main__":
    sys.exit(start())
