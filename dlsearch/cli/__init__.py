"""The command line: the Hydra application, the verbs beside it, and how words are parsed."""
