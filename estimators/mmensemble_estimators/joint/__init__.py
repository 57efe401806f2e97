"""What the joint strategies share."""
