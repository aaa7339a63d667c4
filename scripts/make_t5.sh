#!/bin/sh
# Make a small encoder-decoder for the table-to-text runs: sh scripts/make_t5.sh TEXTS OUT
# TEXTS is a folder with LAMA's evidence sentences (train, dev), wikitext2, factbook.txt and eltec_novels.txt.
# Span corruption first, then LM adaptation (Prompt Tuning, section 3.2). About an hour and a half on two cores; it is a poor LM.
# A run that was stopped goes on with its command and --resume.
set -eu
texts="--texts $1/lama_evidence_train.txt $1/lama_evidence_dev.txt $1/wikitext2_valid_test.txt $1/factbook.txt $1/eltec_novels.txt --weights 1 1 1 1 0.2"
ptune pretrain $texts --objective span-corruption --hidden-size 256 --layers 4 --heads 4 --vocabulary-size 8000 \
    --steps 5000 --batch-tokens 4096 --learning-rate 1e-3 --dtype bfloat16 --out "$2/corrupted"
ptune pretrain --texts $1/lama_evidence_dev.txt $1/wikitext2_valid_test.txt $1/factbook.txt --objective prefix-lm --from "$2/corrupted" \
    --steps 300 --batch-tokens 4096 --learning-rate 5e-4 --dtype bfloat16 --out "$2/adapted"
