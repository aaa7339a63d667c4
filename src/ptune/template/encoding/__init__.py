"""How rows become token ids with slots, units that are read one by one, and who sees whom."""
