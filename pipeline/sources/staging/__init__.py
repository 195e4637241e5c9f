"""From the archives that IGN ships to the folder that `index` reads: unpacks them, and writes one height file per tile.

`archives` finds archives and checks their md5, `sevenzip` reads them, `unpack` writes their members, `height_cog`
writes one height and `domain_heights` those of a domain, `cleanup` removes the elevation files from which heights were
made.
"""
