"""``python -m ptune`` is the command line."""

from ptune.cli.main import main

main()
