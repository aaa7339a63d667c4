"""Everything that reaches into transformers, one file each."""
