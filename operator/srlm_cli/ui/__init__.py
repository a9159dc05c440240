"""`srlm ui`: runs on a page of this machine."""
