"""What a run leaves behind beside the scores: counts, kinds of errors, drift against the training profile."""
