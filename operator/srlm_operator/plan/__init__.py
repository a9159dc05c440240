"""Decides: what a run is and what comes next, as functions of values. No client, no Kopf, no network."""
