"""What runs inside the sandbox: the standard library only, no import of the rest of the package."""
