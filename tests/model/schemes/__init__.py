"""The schemes by their public names."""
from .heads import HeadPerLeaf, Hugetlb, LeafAndVma
from .owners import MmId, NoPageMapcount, PmdPudMapcount, RmapId, TotalMappedPages
from .pages import DoubleMap, LargeMapcount, NrPagesMapped, PerPagePosted
from .scheme import Place
from .spread import PercpuCounter, PercpuRef, SloppyCounter, Snzi
from .subtrees import LogicalCounter, LogicalScan, LogicalTable, PerVma, SpecialBit, SubtreeCount, SubtreePosted

__all__ = ["DEFAULTS", "SAME", "SCHEMES", "Place"]

SCHEMES = {
    "hugetlb": Hugetlb,
    "head_per_leaf": HeadPerLeaf,
    "per_page_posted": PerPagePosted,
    "nr_pages_mapped": NrPagesMapped,
    "subtree_posted": SubtreePosted,
    "subtree": SubtreeCount,
    "logical_scan": LogicalScan,
    "logical_table": LogicalTable,
    "logical_counter": LogicalCounter,
    "double_map": DoubleMap,
    "large_mapcount": LargeMapcount,
    "rmap_id": RmapId,
    "mm_id": MmId,
    "no_page_mapcount": NoPageMapcount,
    "pmd_pud_mapcount": PmdPudMapcount,
    "total_mapped_pages": TotalMappedPages,
    "leaf_and_vma": LeafAndVma,
    "per_vma": PerVma,
    "special_bit": SpecialBit,
    "percpu_counter": PercpuCounter,
    "sloppy_counter": SloppyCounter,
    "percpu_ref": PercpuRef,
    "snzi": Snzi,
}
DEFAULTS = {"cache_refs": "1", "era": "6.2", "transient": "real", "lookup_first": "no",
            "zap_frees_tables": "no", "rmap_aware": "no", "policy": "any", "overflow_check": "none",
            "batch": "no", "rmap_values": "4", "rmap_batch": "no", "rmap_exclusive": "no",
            "model": "default", "hvo": "off"}
SAME = {("batch", "yes"): "6.12"}  # another spelling of a value
