"""What the files of an LM say, beside what the loaded LM takes."""

import pytest
import tiny

from ptune.lm.language_model import LanguageModel
from ptune.lm.source import reading


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_as_many_tokens_fit_by_the_files_as_into_the_lm(family, tmp_path):
    for part in tiny.tiny(family):
        part.save_pretrained(tmp_path)
    lm = LanguageModel.load(tmp_path, device="cpu")
    by_files = reading.load(str(tmp_path))
    assert (by_files.limit, by_files.kind) == (lm.max_length, lm.kind)
