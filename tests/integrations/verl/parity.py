"""The reward of the tests: an untrained model's rollouts are correct about as often as not."""


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    return float(len(solution_str) % 2)


def later_is_better(rollouts):
    """An estimator of the tests' own: 0.1 times the state, for a policy that is uncertain."""
    [rollouts.require(name) for name in ("log_probs", "entropies", "states")]
    inside = rollouts.mask != 0
    assert (rollouts.entropies[inside] > 0).all()
    assert (rollouts.log_probs[inside] < 0).all()
    return 0.1 * rollouts.states * rollouts.mask


def place(rollout):
    """The state of a token: its place in the rollout."""
    return range(len(rollout["token_ids"]))
