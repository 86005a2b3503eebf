"""When two answers mean the same: the rules that `ktae.evaluation.equivalence` tries one after the other."""
