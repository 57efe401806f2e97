"""Networks that write texts."""
