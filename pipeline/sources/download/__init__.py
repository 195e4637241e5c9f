"""Downloads of deliveries from a service of IGN's kind, such as the Géoplateforme: feeds, choice and transfer.

`service` reads the feeds that `feed` parses, `editions` understands their names, `choose` picks what belongs together,
`transfer` downloads files, and `record` remembers in the folder which files belong to it.
"""
