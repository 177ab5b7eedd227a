"""The kinds of evaluation: what the scores on held-out examples mean, one file a kind.

A new kind is a file here with a class of :class:`~.base.EvaluationKind`, and a line in the table of
``registry``.
"""
