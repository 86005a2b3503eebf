"""Token-level credit read from the rollouts themselves: one short file an estimator, one signature."""

from ktae.estimators.interface import ESTIMATORS, NEEDS, Estimator, Rollouts, load_estimator, token_values

__all__ = ["ESTIMATORS", "NEEDS", "Estimator", "Rollouts", "load_estimator", "token_values"]
