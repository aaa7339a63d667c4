"""How an answer is read: label words, trained heads, the next-sentence head, and ensembles of
answers."""
