"""The parts of a machine as Python objects: files, processes, mappings, page tables, snapshots, the journal."""
