"""What kernel developers measured, and what the cost model predicts for the same work: `validate --published`."""
