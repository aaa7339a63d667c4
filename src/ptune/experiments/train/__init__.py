"""``ptune train``: one task, its rows, its prompts, and what came out."""
