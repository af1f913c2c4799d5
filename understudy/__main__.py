"""``python -m understudy`` is ``understudy``."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C ends it without a traceback however early it is."""
    try:
        from understudy.cli import main as commands
    except KeyboardInterrupt:
        sys.stderr.write("\nunderstudy: stopped\n")
        sys.exit(130)
    commands()


if __name__ == "__main__":
    main()
