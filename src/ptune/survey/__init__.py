"""What rows hold, counted before anything is trained: columns, labels, lengths, scripts, texts that
stand twice; and the task that such rows ask for. Nothing here loads torch."""
