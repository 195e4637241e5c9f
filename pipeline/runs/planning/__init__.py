"""What a run would do, before it starts: tiles to map with their reasons, memory, hours, bytes and files.

Nothing here writes a file or starts a worker.
"""
