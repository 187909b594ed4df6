"""shmem and anonymous memory in transparent huge pages: folios of several sizes below one PMD entry."""
