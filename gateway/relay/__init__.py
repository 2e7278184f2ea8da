"""The relay: agents call their model through it, and never hold the key."""
