"""What a document's prefix learns from, what it begins as, and the LM that has the whole
document before it as the teacher."""
