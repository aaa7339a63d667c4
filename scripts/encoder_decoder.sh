#!/bin/sh
# A prefix at all three attentions of an encoder-decoder against one in its decoder alone, Prompt Tuning and fine-tuning, on WebNLG:
# sh scripts/encoder_decoder.sh LM OUT
# LM is an encoder-decoder (google/t5-base-lm-adapt, or what scripts/make_t5.sh made); PTUNE_DATA holds table_to_text/.
set -eu
resume() { [ ! -e "$1/settings.json" ] || echo --resume; }
run() { name=$1; shift; ptune train examples/webnlg-prompt.yaml --lm "$lm" --out "$out/$name" $(resume "$out/$name") "$@"; }
lm=$1 out=$2 batches="--train.batch-size 8"
run manual --method manual --template "{table|shorten}"
run prompt $batches
run prefix --method prefix-tuning --template "{prefix:5} {table|shorten}" $batches
run prefix-decoder --title "Prefix, decoder only" --method prefix-tuning --template "{prefix:5} {table|shorten}" --prefix.attentions decoder $batches
run fine-tune --method fine-tune --template "{table|shorten}" $batches
ptune report "$out"/manual "$out"/prompt "$out"/prefix "$out"/prefix-decoder "$out"/fine-tune --out "$out"
