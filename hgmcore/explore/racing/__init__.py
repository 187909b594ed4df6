"""The engines a second time, compiled so that a search of races can cut them (setup.py: for_races)."""
