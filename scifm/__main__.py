"""`python -m scifm` is the command `scifm`."""

import sys

from scifm.cli import main

if __name__ == "__main__":
    sys.exit(main())
