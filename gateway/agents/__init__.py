"""Agents that work on a browser, each in a process of its own: Stagehand and browser-use."""
