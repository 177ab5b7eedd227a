"""Optuna's TPE with the densities of finished trials kept between proposals."""
