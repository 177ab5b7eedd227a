"""Figures of the confirmation: every replica, paired differences, optimism, curves over seeds."""
