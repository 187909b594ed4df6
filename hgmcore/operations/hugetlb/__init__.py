"""hugetlb: huge pages of a file or a private mapping, each of one size, mapped whole or (HGM) in pieces."""
