"""What several families use: layers, losses, schedules, supervised learning, seeded splits, batches in memory."""
