"""Executions: structured steps on a runtime, carried out by a process of the runtime's own."""
