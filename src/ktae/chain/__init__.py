"""Chains of arithmetic modulo 97: the task of the quickstart and of the credit benchmark."""
