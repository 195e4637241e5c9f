"""From a delivery to its map in one call, which orders the same functions as the commands of the single steps."""
