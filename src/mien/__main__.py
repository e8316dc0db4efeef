"""`mien` and `python -m mien`: the command line. Ctrl-C ends it without a traceback, even while it is loading."""

import signal
import sys


def main() -> None:
    """Run the command line: the entry point of the `mien` script."""
    try:
        from mien.cli import main, set_environment

        set_environment()
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the exit status is already decided


if __name__ == "__main__":
    main()
