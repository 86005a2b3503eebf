# What the four scripts next to this file share: the settings of arXiv 2505.16826 on Qwen2.5-Math. Not run on GPUs.
# Everything is set by environment variables; arguments of the scripts go to verl and override what is here.
set -euo pipefail

FOLDER=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
MODEL=${MODEL:-Qwen/Qwen2.5-Math-1.5B}
TRAIN=${TRAIN:-data/math_train.parquet}
TEST=${TEST:-data/math_test.parquet}
NNODES=${NNODES:-1}
GPUS_PER_NODE=${GPUS_PER_NODE:-8}
TENSOR_PARALLEL=${TENSOR_PARALLEL:-1}  # GPUs that hold one copy of the model while sampling; 2 for 7B
TOKENS_PER_GPU=${TOKENS_PER_GPU:-16384}  # in one pass of the update
OUT=${OUT:-runs/verl}

# From the paper: 1024 problems x 16 rollouts, mini-batches of 128 problems, learning rate 1e-6, temperature 1, prompts of
# 1024 and responses of 3072 tokens at most. Chosen here: ten times through the data, float32 weights under bfloat16.
COMMON=(
    data.train_files="$TRAIN" data.val_files="$TEST" data.seed=0
    data.train_batch_size=1024 data.max_prompt_length=1024 data.max_response_length=3072
    data.filter_overlong_prompts=True data.truncation=error
    actor_rollout_ref.model.path="$MODEL"
    actor_rollout_ref.actor.strategy=fsdp2 actor_rollout_ref.actor.optim.lr=1e-6
    actor_rollout_ref.actor.ppo_mini_batch_size=128
    actor_rollout_ref.actor.use_dynamic_bsz=True actor_rollout_ref.actor.ppo_max_token_len_per_gpu="$TOKENS_PER_GPU"
    actor_rollout_ref.rollout.name=vllm actor_rollout_ref.rollout.n=16 actor_rollout_ref.rollout.temperature=1.0
    actor_rollout_ref.rollout.tensor_model_parallel_size="$TENSOR_PARALLEL"
    actor_rollout_ref.rollout.max_model_len=4096
    reward.custom_reward_function.path="$FOLDER/reward.py"
    trainer.nnodes="$NNODES" trainer.n_gpus_per_node="$GPUS_PER_NODE"
    trainer.total_epochs=10 trainer.val_before_train=False trainer.test_freq=10 trainer.save_freq=10
    trainer.project_name=ktae trainer.default_local_dir="$OUT/$(basename "$0" .sh)"
    trainer.experiment_name="$(basename "$0" .sh)" "trainer.logger=[console]"
)

GRPO=(
    algorithm.adv_estimator=grpo critic.enable=False
    actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-mean actor_rollout_ref.actor.clip_ratio=0.2
    actor_rollout_ref.actor.use_kl_loss=True actor_rollout_ref.actor.kl_loss_coef=0.001
    actor_rollout_ref.actor.kl_loss_type=low_var_kl
)

# Clip-higher, a mean over tokens, no KL, groups with correct and incorrect rollouts only, and a penalty that grows from
# 0 to 1 over the last 512 tokens of the longest responses.
DAPO=(
    algorithm.adv_estimator=grpo critic.enable=False
    actor_rollout_ref.actor.loss_agg_mode=token-mean
    actor_rollout_ref.actor.clip_ratio_low=0.2 actor_rollout_ref.actor.clip_ratio_high=0.28
    actor_rollout_ref.actor.use_kl_loss=False
    algorithm.filter_groups.enable=True algorithm.filter_groups.metric=acc
    reward.reward_manager.name=dapo +reward.reward_kwargs.max_resp_len=3072
    +reward.reward_kwargs.overlong_buffer_cfg.enable=True +reward.reward_kwargs.overlong_buffer_cfg.len=512
    +reward.reward_kwargs.overlong_buffer_cfg.penalty_factor=1.0 +reward.reward_kwargs.overlong_buffer_cfg.log=False
)

# The paper's formula; +algorithm.ktae.preset=recommended for what did best in our experiments.
KTAE=(
    trainer.v1.trainer_mode=ktae_sync
    +algorithm.ktae.preset=paper
)

train() {
    exec "${PYTHON:-python3}" -m verl.trainer.main_ppo "$@"
}
