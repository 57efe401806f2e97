"""How a network is built; each builder returns an encoder: named arrays → an embedding of ``embedding_size``."""
