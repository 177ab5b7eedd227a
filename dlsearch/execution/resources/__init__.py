"""A machine's resources: slots, how many trials it holds, and what an engine allotted."""
