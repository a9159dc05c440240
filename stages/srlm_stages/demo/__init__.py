"""What the demo run brings along: a small real model and a small human-ranked data set."""
