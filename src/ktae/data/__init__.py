"""Problem collections in one form to train on: read, chosen, decontaminated, written."""
