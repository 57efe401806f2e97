"""The training loop, what a network is trained to give, augmentation, what is frozen."""
