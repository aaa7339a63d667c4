"""What every search shares: the task, candidates scored in mixed batches, the budget, what is
written. It imports what stands below ``search``, and nothing of the other packages here."""
