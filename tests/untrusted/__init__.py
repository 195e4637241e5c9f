"""The model: its network and its weights."""
