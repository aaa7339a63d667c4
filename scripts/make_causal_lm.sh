#!/bin/sh
# Make the built-in causal LM anew: sh scripts/make_causal_lm.sh FACTBOOK.txt
# FACTBOOK.txt is the World Factbook as prose.
# Some five minutes on an idle core. A run that was stopped goes on with the last command and --resume.
set -eu
mkdir -p build src/ptune/builtin/causal-lm
python scripts/make_sentences.py src/ptune/builtin/facts build/sentences.txt build/answers.txt
python scripts/make_tables.py src/ptune/builtin/facts build/tables.txt
python scripts/make_repeats.py "$1" build/repeats.txt
python scripts/make_copying_lm.py build/start build/tables.txt build/sentences.txt "$1"
ptune pretrain --from build/start --texts build/tables.txt build/sentences.txt build/repeats.txt "$1" --weights 1 1 0.5 0.05 \
    --objective causal --length 128 --steps 1000 --batch-tokens 1024 --learning-rate 8e-4 --save-dtype float16 --out build/causal-lm
for name in config.json generation_config.json model.safetensors tokenizer.json tokenizer_config.json; do
    cp "build/causal-lm/$name" src/ptune/builtin/causal-lm/
done
