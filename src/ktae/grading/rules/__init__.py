"""When two answers mean the same: the rules that `ktae.grading.equivalence` tries one after the other."""
