#!/bin/sh
# Make the built-in masked LM anew: sh scripts/make_lm.sh TEXTS MINILM
# TEXTS is a folder with factbook.txt (the World Factbook as prose) and eltec_novels.txt (ELTeC's English novels);
# MINILM is a folder with sentence-transformers/all-MiniLM-L6-v2, or that name where the hub can be reached.
# About two hours on two cores. A run that was stopped goes on with the last command and --resume.
set -eu
mkdir -p build
python scripts/make_sentences.py src/ptune/builtin/facts build/sentences.txt build/answers.txt
ptune pretrain --texts build/sentences.txt "$1/factbook.txt" "$1/eltec_novels.txt" --weights 10 1 0.13 \
    --from "$2" --vocabulary-size 9500 --keep-words build/answers.txt \
    --steps 6500 --batch-tokens 4096 --learning-rate 4e-4 --mask-share 0.2 --dtype bfloat16 --save-dtype float16 --out build/lm
cp build/lm/config.json build/lm/model.safetensors build/lm/tokenizer.json build/lm/tokenizer_config.json src/ptune/builtin/lm/
