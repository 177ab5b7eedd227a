"""The record of a study, read from its storage alone: what reports and ``status`` are made of."""
