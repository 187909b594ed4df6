"""The schemes' engines once more, compiled to count events for the cost model (include/hgmcore/events.h)."""
