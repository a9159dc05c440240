"""Verdicts: asking a judge, reading scores, comparing answers, choosing pairs."""
