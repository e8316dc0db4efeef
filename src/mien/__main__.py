"""`mien` and `python -m mien`: the command line, which Ctrl-C ends without a traceback while it is still being loaded, too."""

import signal
import sys


def main() -> None:
    """Run the command line: the entry point of the `mien` script."""
    try:
        from mien.cli import main

        main()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the end is near, and has its status


if __name__ == "__main__":
    main()
