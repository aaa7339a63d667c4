"""``python -m ptune`` is the command line."""

import sys


def run() -> None:
    """Import the command line and run it; Ctrl-C while it is imported ends it as later on."""
    try:
        from ptune.cli.main import main

        main()
    except KeyboardInterrupt:
        print("\nptune: stopped.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    run()
