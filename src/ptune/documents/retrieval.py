"""Texts that are nearest to a question by their words (TF-IDF)."""

from collections.abc import Sequence

from sklearn.feature_extraction.text import TfidfVectorizer


def nearest(texts: Sequence[str], question: str) -> list[int]:
    """The numbers of the texts, the one whose words are nearest to the question's first; equal ones
    in their order."""
    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    try:
        matrix = vectorizer.fit_transform([*texts, question])
    except ValueError:  # there is no word in any of them
        return list(range(len(texts)))
    likeness = (matrix[:-1] @ matrix[-1].T).toarray().ravel()
    return sorted(range(len(texts)), key=lambda number: -likeness[number])
