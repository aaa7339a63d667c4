#!/bin/sh
# Prefix-Tuning's low-data claim (section 6.3) put to the test on E2E: sh scripts/low_data.sh LM OUT
# 50 and 200 tables with one text each, three draws; a prefix that starts at random or from words, and fine-tuning; the same
# number of rows is seen by each. The page in OUT has the plot of BLEU against rows.
set -eu
resume() { [ ! -e "$1/settings.json" ] || echo --resume; }
for seed in 0 1 2; do
    for rows in 50 200; do
        run() {
            name=$1; shift
            ptune train examples/e2e-prefix.yaml --lm "$lm" --out "$out/$name-$rows-$seed" $(resume "$out/$name-$rows-$seed") --data.take.train $rows --data.take.dev 20 \
                --data.seed $seed --train.seed $seed --train.epochs $((rows == 50 ? 12 : 5)) "$@"
        }
        lm=$1 out=$2
        run random --dtype bfloat16
        run words --title "Prefix-Tuning from words" --template '{prefix:"summarize the following table :"} {table} = {mask}' --dtype bfloat16
        run fine-tune --method fine-tune --template "{table} = {mask}" --train.batch-size 8 --dtype bfloat16
    done
done
ptune report "$2"/*-[0-9] --out "$2"
