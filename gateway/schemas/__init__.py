"""JSON Schemas that callers give, and the process that validates by them."""
