#!/bin/sh
# What method auto chooses from few labelled rows, beside TF-IDF and the linear probe on the same rows and LM:
# sh scripts/auto.sh LM OUT, or with rows of each label, seeds and sets: sh scripts/auto.sh minilm auto "8" "0" "trec mr"
# LM is a sentence encoder (minilm in docs/figures.md); PTUNE_DATA holds classification/. Methods leave the LM as it is. MINUTES
# bounds each run; by default they are enough to try all methods on any machine, so that how busy it is decides nothing.
set -eu
resume() { [ ! -e "$1/settings.json" ] || echo --resume; }
lm=$1 out=$2
for rows in ${3:-8 16}; do  # of each label in all: auto learns from train and dev, each half of them
    for task in ${5:-trec sst2 mr agnews sst5}; do
        for seed in ${4:-0 1}; do
            folder=$out/$task-$rows-$seed
            ptune train "$task" --method auto --tune prompt --lm "$lm" --minutes "${MINUTES:-600}" --max-length 64 --data.shots $((rows / 2)) \
                --data.seed "$seed" --train.seed "$seed" --out "$folder" $(resume "$folder")
        done
    done
    ptune report "$out"/*-"$rows"-* --out "$out/report-$rows" --table "$out/figures-$rows.csv"
done
