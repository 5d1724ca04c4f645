"""`python -m calogen`: the command line."""

import sys

from calogen.cli import main

if __name__ == "__main__":
    sys.exit(main())
