"""Structured steps on a browser: vocabularies of calls, and the process per runtime that carries them out."""
