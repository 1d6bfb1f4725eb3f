"""From COTAHIST files to causal features, labels and windows; no Ray, no MLflow."""
