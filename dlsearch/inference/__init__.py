"""The end product of a study: the kept model, used for predictions and exported.

Its data set is not needed.
"""
