"""Running attempts: the worker, its heartbeat and fork server, and the process of a trial."""
