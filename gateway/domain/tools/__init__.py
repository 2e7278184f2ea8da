"""Tools and toolsets of spaces, which agents are given, and calls of them."""
