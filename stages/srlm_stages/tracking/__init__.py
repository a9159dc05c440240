"""Experiment trackers: one file each, and one run in each tracker for each SelfRewardingRun, found again by its UID.

A training sends its curves while it runs, the report the figures of all models and the curves that are missing. What
a tracker is told changes nothing else: nothing waits for one that is slow, and one that is down fails no stage.
"""
