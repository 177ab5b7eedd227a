"""Storage: Optuna's tables, and ours for studies, attempts with leases, and the test ledger."""
