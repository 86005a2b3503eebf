"""Pictures of training, of evaluations and of one group's tokens, from plain data: each kind drawn by one function."""
