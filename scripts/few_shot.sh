#!/bin/sh
# Few-shot classification, as in docs/figures.md: sh scripts/few_shot.sh MASKED CAUSAL OUT
# MASKED and CAUSAL are LMs (minilm-mlm and smollm2-135m there); PTUNE_DATA holds classification/ and fewglue_32dev/.
set -eu
resume() { [ ! -e "$1/settings.json" ] || echo --resume; }
masked=$1 causal=$2 out=$3
compare() { name=$1; shift; ptune compare "$@" --out "$out/$name" $(resume "$out/$name"); }  # all but the first in bfloat16, which is faster where the CPU has it
compare single sst2 sst5 mr trec agnews --lm "$masked" --seeds 3 --steps 100 --looks 5 --test 500
for task in "cb copa wic wsc rte record boolq --max-length 128" "multirc --max-length 192"; do  # a question of MultiRC alone may need 132
    compare "fewglue-${task%% *}" $task --lm "$masked" --steps 40 --looks 4 --test 100 --train.batch-size 8 --dtype bfloat16
done
compare causal sst2 trec --lm "$causal" --steps 50 --looks 5 --test 200 --train.batch-size 8 --dtype bfloat16 \
    --methods majority,manual,head,manual+fine-tune,p-tuning,prompt-tuning-adamw
compare pet examples/trec-pet.yaml examples/mr-pet.yaml --lm "$masked" --steps 60 --looks 5 --dtype bfloat16 \
    --methods majority,manual,head,manual+fine-tune,pet,ipet
compare grid sst2 trec --lm "$masked" --steps 60 --looks 5 --test 200 --dtype bfloat16 --grid --methods manual,manual+fine-tune
