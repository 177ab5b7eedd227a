"""What several families use.

There are layers, losses, schedules, supervised learning, seeded splits and batches in memory.
"""
