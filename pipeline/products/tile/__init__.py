"""One tile of a domain: two COGs and the STAC item that is written last and so seals them.

The same files are verified here. Nothing here knows of other tiles or of the nation.
"""
