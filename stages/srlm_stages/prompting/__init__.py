"""New prompts: which are accepted, and pools of ready ones."""
