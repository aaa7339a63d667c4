"""Small LMs from text files: corpus, vocabulary and the loop."""
