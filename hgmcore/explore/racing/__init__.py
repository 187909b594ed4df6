"""The engines once more, compiled so that a search of races can cut them (setup.py: racing)."""
