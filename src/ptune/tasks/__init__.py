"""Tasks: rows, templates and figures, no maths."""
