"""What the estimators of all modalities share."""
