#!/bin/sh
# The figures of docs/credit-assignment.md: about twenty minutes on two cores. Run from the repository's root.
set -e
out=experiments/credit
export PYTHONPATH=experiments/replication:experiments/credit
others=long_chains:rollouts,legs:rollouts,game24:rollouts,word_problems:rollouts
# The rows of three sources that are gone from the command stay.
gone=$(grep -E '"source": "(chain_digits|chain_phrases|game24_digits)"' $out/held_out.jsonl)
ktae bench credit --split held-out --sources chain,chain_4_steps,chain_6_steps,$others,gradients --json $out/held_out.jsonl
echo "$gone" >> $out/held_out.jsonl
# The same number of rollouts in smaller and larger groups.
for shape in "512 4" "256 8" "64 32" "32 64"; do
    set -- $shape
    ktae bench credit --split held-out --groups "$1" --group-size "$2" \
        --sources chain_4_steps,legs:rollouts,game24:rollouts --estimators ktae,ktae_no_tf,ktae_context,ktae_calculation,back_off,prefix_tree,random \
        --json "$out/groups_of_$2.jsonl"
done
python $out/tables.py
python $out/wording.py
