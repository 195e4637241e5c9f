"""The one error of this package."""


class DocsError(Exception):
    """The documentation cannot be built, or it breaks one of its rules; the message names the page and the rule."""
