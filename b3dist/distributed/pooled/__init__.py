"""The pooled model: one training over all assets' windows, divided among workers, resumable by epoch."""
