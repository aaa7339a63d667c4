"""``ptune compare``: methods side by side on the same few rows of tasks with labels."""
