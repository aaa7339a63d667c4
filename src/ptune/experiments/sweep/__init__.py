"""``ptune sweep``: tasks trained with many settings, by any number of processes in one folder."""
