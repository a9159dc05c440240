"""Where models and data come from, and what a checkpoint consists of."""
