"""``ptune probe``: what an LM knows of facts, by hand-written and by trained prompts."""
