"""A study: claiming trials, telling results, and the documents that describe it."""
