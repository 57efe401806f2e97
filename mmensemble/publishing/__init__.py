"""What a model file says of itself for others: its card, and both on the Hugging Face Hub."""

from mmensemble.publishing.card import write_card
from mmensemble.publishing.hub import from_hub, push_to_hub

__all__ = ["from_hub", "push_to_hub", "write_card"]
