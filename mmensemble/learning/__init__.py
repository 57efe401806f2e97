"""What a `y` is, which columns an estimator sees, how a member is fitted, and its folds."""
