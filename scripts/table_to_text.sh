#!/bin/sh
# The methods side by side on E2E and WebNLG: sh scripts/table_to_text.sh LM OUT
# LM is a causal LM (HuggingFaceTB/SmolLM2-135M-Instruct), OUT the folder for the runs and the page. PTUNE_DATA holds table_to_text/.
# A run that was stopped goes on when the script is started again; runs that are finished are left as they are.
set -eu
resume() { [ ! -e "$1/settings.json" ] || echo --resume; }
for task in e2e webnlg; do
    table=$([ $task = e2e ] && echo "{table}" || echo "{table|shorten}")
    run() { name=$1; shift; ptune train examples/$task-prefix.yaml --lm "$lm" --out "$out/$task-$name" $(resume "$out/$task-$name") "$@"; }
    lm=$1 out=$2
    run manual --method manual --template "$table = {mask}" --dtype bfloat16
    run prefix --dtype bfloat16
    run infix --title Infix --template "$table {prefix:5} = {mask}" --dtype bfloat16
    run prompt --method prompt-tuning --template "{soft:20} $table = {mask}" --train.batch-size 8 --dtype bfloat16
    run fine-tune --method fine-tune --template "$table = {mask}" --train.batch-size 8 --dtype bfloat16
done
ptune report "$2"/e2e-* "$2"/webnlg-* --out "$2"
