"""The command `docmem`, which `python -m docmem` is too."""

import signal
import sys


def main() -> int:
    """Run one command and return its exit status.

    What it needs takes seconds to import: until then Ctrl-C ends the process without a word.
    """
    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from docmem.cli.main import main as command

    signal.signal(signal.SIGINT, usual)
    return command()


if __name__ == "__main__":
    sys.exit(main())
