"""The browser gateway. Public are its version and `gateway.launchers.base`; CONTRIBUTING.md says more."""

__all__ = ["__version__"]

__version__ = "0.1.0"
