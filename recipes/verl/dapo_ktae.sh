#!/usr/bin/env bash
# DAPO+KTAE in verl 0.9.1 (docs/verl.md), the settings of common.sh:
#
#   recipes/verl/dapo_ktae.sh
#   MODEL=Qwen/Qwen2.5-Math-7B TRAIN=data/math_train_3to5.parquet TENSOR_PARALLEL=2 recipes/verl/dapo_ktae.sh
#
# Composed and validated by a test, never run on GPUs.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
train "${COMMON[@]}" "${DAPO[@]}" "${KTAE[@]}" "$@"
