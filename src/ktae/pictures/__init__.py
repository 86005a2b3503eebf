"""Pictures of training and of one group's tokens, from plain data: each kind drawn by one function."""
