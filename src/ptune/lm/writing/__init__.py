"""Text that an LM writes for the rows of a batch."""
