"""``python -m ptune`` is the command line."""
from ptune.cli import main

main()
