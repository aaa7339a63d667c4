"""Where LM, bank, templates and answers meet: tasks, encoded rows, losses, scores and written
texts."""
