"""Running attempts: the worker, its heartbeat and fork server, the process of a trial, and what outlives them."""
