"""`python -m docmem` is the command `docmem`."""

import sys

from docmem.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
