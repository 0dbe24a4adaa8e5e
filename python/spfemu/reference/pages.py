"""Pages of anonymous memory: where they come from, and where they go."""

from __future__ import annotations

from spfemu.reference.model import Frames, HugePage, OutOfFramesError, Page


def new_anonymous_page(frames: Frames, value: int = 0) -> Page:
    """A page of anonymous memory that is about to be mapped once."""
    frames.allocate()
    try:
        frames.charge()
    except OutOfFramesError:
        frames.free()
        raise
    return Page(anonymous=True, value=value, mapcount=1, charged=True, exclusive=True)


def free_page(frames: Frames, page: Page) -> None:
    """Frees a small anonymous page."""
    frames.free()
    frames.charged -= page.charged
    page.charged = False


def put_huge_page(frames: Frames, page: HugePage) -> None:
    """Takes one mapping, of whatever kind, off a huge page."""
    page.mappings -= 1
    if page.mappings == 0:
        free_huge_page(frames, page)


def free_huge_page(frames: Frames, page: HugePage) -> None:
    """Frees a huge page."""
    frames.free(page.nr)
    frames.charged -= page.nr * page.charged
