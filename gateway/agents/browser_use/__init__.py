"""What runs on the Python of browser-use's own environment, which has no package of the gateway's."""
