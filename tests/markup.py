"""HTML as a parser sees it."""

from __future__ import annotations

from html.parser import HTMLParser


class Balanced(HTMLParser):
    """Tags that were opened and not closed, how often each occurs, and what they refer to."""

    VOID = frozenset({"meta", "link", "img", "br", "input", "path", "use", "image", "rect"})

    def __init__(self):
        super().__init__()
        self.open, self.counts, self.addresses = [], {}, []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href", "srcset", "action")]

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open, f"</{tag}> closes nothing"
            assert self.open.pop() == tag
