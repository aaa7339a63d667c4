"""Arguments become options, or are refused in a sentence."""
