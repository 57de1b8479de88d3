"""Tool tips of text that others wrote: a layer's name, a bundle's title."""

from __future__ import annotations

from html import escape


def tip(text: str) -> str:
    """The text as Qt shows it letter by letter; where it looks like HTML, Qt would read what its pictures name.

    >>> tip("liver"), tip("a <img src='/dev/zero'>")
    ('liver', '<span>a &lt;img src=&#x27;/dev/zero&#x27;&gt;</span>')
    """
    return f"<span>{escape(text)}</span>" if "<" in text else text
