"""What several contracts spell alike: how a browser is launched, and names in camelCase."""
