#!/bin/sh
# The figures of docs/credit-assignment.md: about fifteen minutes on two cores. Run from the repository's root.
set -e
out=experiments/credit
ktae bench credit --split held-out --json $out/held_out.json --markdown $out/held_out.md
# The same number of rollouts in smaller and larger groups.
for shape in "512 4" "256 8" "64 32" "32 64"; do
    set -- $shape
    ktae bench credit --split held-out --groups "$1" --group-size "$2" \
        --sources chain_4_steps,chain_phrases,legs,game24 --estimators ktae,ktae_no_tf,context_2,tempo,random \
        --json "$out/held_out_groups_of_$2.json"
done
