"""Processes that trials are forked from: the fork server, what it imports, what it gives up."""
