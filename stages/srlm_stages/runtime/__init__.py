"""What every stage uses: progress, redaction, rows on disk, statistics, the termination message."""
