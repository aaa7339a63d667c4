#!/bin/sh
# Words and templates that a program looks for beside hand-written ones, with 16 rows of each label, as in docs/figures.md:
# sh scripts/searched_prompts.sh LM OUT, or with other sets and seeds: sh scripts/searched_prompts.sh minilm-mlm out "trec agnews" "0 1"
# LM is a masked LM; PTUNE_DATA holds classification/. Words are searched with the set's first pattern, templates with its first
# words, each by the rows of its own draw; every prompt is then asked as it stands and after the same training, with and without
# demonstrations. No test row chooses anything. The same command goes on where it was stopped; TEST, STEPS and BEAMS make it smaller.
set -eu
resume() { [ ! -e "$1/settings.json" ] || echo --resume; }
here=$(dirname "$0")
lm=$1 out=$2 sets=${3:-trec sst2 mr} seeds=${4:-0 1 2}
python() { command "${PYTHON:-python3}" "$@"; }
for set in $sets; do
    for seed in $seeds; do
        draw=$out/$set-$seed
        [ -e "$draw/words.yaml" ] && continue
        python "$here/searched_prompts.py" first "$set" "$draw"
        ptune search "$draw/first.yaml" --by label-words --lm "$lm" --seed "$seed" --out "$draw/label-words" $(resume "$draw/label-words")
        ptune search "$draw/first.yaml" --by generate --lm "$lm" --seed "$seed" --beams "${BEAMS:-10}" --out "$draw/generate" \
            $(resume "$draw/generate")
        python "$here/searched_prompts.py" tasks "$set" "$draw"
    done
done
tasks=$(for set in $sets; do for seed in $seeds; do echo "$out/$set-$seed/words.yaml $out/$set-$seed/written.yaml"; done; done)
compare() {
    name=$1; shift
    ptune compare $tasks --lm "$lm" --methods manual,manual+fine-tune --select first --grid --steps "${STEPS:-40}" --looks 2 \
        --train.batch-size 8 --test "${TEST:-500}" --out "$out/$name" "$@" $(resume "$out/$name")
}
compare plain
compare demonstrations --demonstrations 1
python "$here/searched_prompts.py" table "$sets" "$out"
