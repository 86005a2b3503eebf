"""`python -m ktae` is `ktae`."""

import sys

from ktae.cli import main

if __name__ == "__main__":
    sys.exit(main())
