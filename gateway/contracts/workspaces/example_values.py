"""Values that the examples of answers share, so that they fit together."""

from __future__ import annotations

WORKSPACE = "01a22630-950e-76e0-91cf-50dc641c9805"
RUNTIME = "01a22630-951f-7708-b4a8-ede1837dd806"
PROFILE = "01a22630-9522-7b1c-8f3e-5d6c7b8a9901"
AI_CREDENTIAL = "01a22630-9528-7d0e-a2b4-6c5d4e3f2a10"
ARTIFACT = "01a22630-9a2e-7c8d-9f3b-6e4d5c6b7a8f"
FILE = "01a22630-9a11-7d2e-8c1a-4b3c2d1e0f9a"
RUN = "01a22630-9535-71c2-9137-1fe26c90fc07"

ALIAS = "main"

CREATED = "2026-11-29T09:00:00.000Z"
STARTED = "2026-11-29T09:00:01.250Z"
LATER = "2026-11-29T09:05:00.000Z"
EXPIRES = "2026-11-30T09:05:00.000Z"

ROOT = "https://gateway.example.com"
# Stands for tokens.
OPAQUE = "7Qm3xR2kVtYb8NfLw0JcZp5sDgHa1eUi"

CURSOR = "ZmlsZXN8fHxyZXBvcnRzL2p1bmUuY3N2"
