"""From what IGN ships to what `index` reads: archives unpacked, 1 km elevation files made one height file a tile.

`volumes` finds archives and checks their md5, `sevenzip` reads them, `unpack` places their members, `heightfile`
writes one height and `heights` those of a domain, `small` removes the files behind them.
"""

from pipeline.sources.staging.archives import Archive, check_sums, find
from pipeline.sources.staging.cleanup import removable, remove
from pipeline.sources.staging.domain_heights import HeightsReport, write_heights
from pipeline.sources.staging.height_cog import Holes, Treatment, holes_of
from pipeline.sources.staging.sevenzip import Contents, Member, read_contents
from pipeline.sources.staging.unpack import check_members, claimed, pending, unpack

__all__ = [
    "Archive",
    "Contents",
    "HeightsReport",
    "Holes",
    "Member",
    "Treatment",
    "check_members",
    "check_sums",
    "claimed",
    "find",
    "holes_of",
    "pending",
    "read_contents",
    "removable",
    "remove",
    "unpack",
    "write_heights",
]
