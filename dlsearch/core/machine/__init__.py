"""What the machine and its kernel offer: processes, threads, forks, cards, confinement."""
