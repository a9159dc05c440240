"""From messages to token ids, and from what a model wrote to its answer."""
