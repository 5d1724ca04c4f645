"""How to learn and draw p(x | c), given any network."""
