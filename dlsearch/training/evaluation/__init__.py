"""How a task of each kind is measured on its test set.

The trunk asks the table, and knows no kind.
"""
