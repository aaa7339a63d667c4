"""How the LM's output at an answer becomes scores of labels: one class for each way to read it."""
