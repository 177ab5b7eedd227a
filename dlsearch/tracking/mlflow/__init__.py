"""The shipper, and everything else that imports mlflow."""
