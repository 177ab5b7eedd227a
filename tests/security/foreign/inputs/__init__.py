"""The inputs of the corpus, by what somebody else gave."""
