"""Data sets that come in layouts of their own."""
