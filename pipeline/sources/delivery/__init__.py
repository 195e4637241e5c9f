"""What IGN ships: names of files and folders, headers, days of flight, producer and licence.

Nothing here reads pixels or decides whether a file may be mapped.
"""
