"""Input that nobody vouches for: one mechanism for each way in which it could do harm.

`own_files` decides what may be deleted or loaded, and `documents` reads JSON, YAML and XML. Rasters are opened by
`sources`, weights by `model`, and answers of servers by `sources.http_client`.
"""
