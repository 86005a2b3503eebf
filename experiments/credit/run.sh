#!/bin/sh
# The figures of docs/credit-assignment.md: six minutes of one idle core. Run from the repository's root.
set -e
estimators=ktae,ktae_no_tf,position,random
out=experiments/credit
ktae bench credit --split held-out --estimators $estimators --json $out/held_out.json --markdown $out/held_out.md
# The same number of rollouts in smaller and larger groups.
for shape in "512 4" "256 8" "64 32" "32 64"; do
    set -- $shape
    ktae bench credit --split held-out --estimators $estimators --groups "$1" --group-size "$2" \
        --sources chain_4_steps,chain_phrases,legs,game24 --json "$out/held_out_groups_of_$2.json"
done
