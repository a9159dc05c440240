"""What preflight checks about models, before anything expensive starts."""
