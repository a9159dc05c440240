"""Renders: a stage's task becomes a Job manifest. Functions of values."""
