"""A task's rows: read from its files, checked, renamed and drawn."""
