"""The cost model: exact counts of events times a named processor's costs, each with an interval.

    T(trace, scheme, profile) = sum over operations K(op)  +  sum over classes count x cost

Counts are integers of a counting pass (events), the same on every machine. Costs and K(op), the kernel's work that no
scheme changes, are a profile's (profile). T is linear in the profile, so its interval is a closed form (linear).
"""
