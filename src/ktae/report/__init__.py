"""What a token was credited for: tables, scores of saved rollouts, pictures, one page."""
