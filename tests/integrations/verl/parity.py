"""The reward of the tests: an untrained model's rollouts are correct about as often as not."""


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    return float(len(solution_str) % 2)
