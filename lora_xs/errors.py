"""The one exception for a user's mistake: shown as a single line, without a traceback, exit status 2."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake the user can mend: the message is one line naming the thing, the place and the mend."""
