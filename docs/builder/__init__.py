"""Builds the documentation site: hand-written pages of `docs/`, filled from the code, then checked."""
