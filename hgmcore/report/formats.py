"""JSON schemas (draft 2020-12) of every format that hgmcore writes as JSON, by the name that stands in its "format"."""

from __future__ import annotations

from hgmcore.analysis.explain import KINDS
from hgmcore.trace.statements import NAMES

TEXT, BOOL, NUMBER = {"type": "string"}, {"type": "boolean"}, {"type": "number"}
COUNT = {"type": "integer", "minimum": 0}
INTEGER = {"type": "integer"}
OPTIONS = {"type": "object", "additionalProperties": TEXT}
RUNS = {"type": "array", "description": "half-open runs [first, last, value] over base pages",
        "items": {"type": "array", "items": INTEGER, "minItems": 3, "maxItems": 3}}


def described(schema, description):
    return {**schema, "description": description}


def record(fields, optional=None):
    """An object with exactly these fields, and perhaps those of `optional`."""
    return {"type": "object", "properties": {**fields, **(optional or {})}, "required": list(fields),
            "additionalProperties": False}


def array(items):
    return {"type": "array", "items": items}


def by_name(values):
    return {"type": "object", "additionalProperties": values}


def maybe(schema):
    return {"anyOf": [schema, {"type": "null"}]}


def named(name, fields, optional=None):
    return record({"format": {"const": name}, **fields}, optional)


OPERATION_NAME = {"enum": list(NAMES)}
ERROR = described(maybe(TEXT), "the errno's name, as EEXIST; null: none")
DONE = described(COUNT, "bytes")
ATOMICS = record({"persistent": described(COUNT, "ref + map"), "transient": described(COUNT, "of look-ups"),
                  "ref": COUNT, "map": COUNT})
COST = {"operations": COUNT, "leaf_installs": COUNT, "leaf_removes": COUNT, "table_allocs": COUNT, "table_frees": COUNT,
        "atomics": ATOMICS, "lines": described(COUNT, "struct pages that atomics touched"), "entries_scanned": COUNT,
        "locks": COUNT, "table_bytes_peak": COUNT, "struct_page_bytes": COUNT}
LEVELS = record({"pte": COUNT, "pmd": COUNT, "pud": COUNT})
FOLIO = record({
    "file": TEXT, "page": COUNT, "refcount": INTEGER, "mapcount": INTEGER, "mapped": BOOL, "maybe_shared": BOOL,
    "maybe_shared_hugetlb": BOOL, "page_mapcount": RUNS, "kpagecount": RUNS,
    "state": described({"type": "object"}, "the words that the scheme keeps"), "expected_refs": INTEGER,
    "movable": BOOL, "movable_all": BOOL, "hvo": BOOL, "page_cache_refs": COUNT, "pins": INTEGER,
    "truth": described(record({"leaves": COUNT, "processes": COUNT, "mappings": COUNT, "pages_mapped": COUNT,
                               "page_mapcount": RUNS}), "recounted from the page tables"),
}, {"pages": described(COUNT, "base pages; not of hugetlb"),
    "first": described(COUNT, "base page in `page`; shmem only"),
    "nr_file_mapped": INTEGER, "in_page_cache": {"const": False}})
RACES = described(record({
    "ended": {"enum": ["closed", "interrupt", "memory"]}, "preemptions": described(maybe(COUNT), "at most; null: any"),
    "pairs": COUNT, "states": COUNT, "outcomes": COUNT, "odd": COUNT, "benign": COUNT, "seconds": NUMBER,
    "broken": by_name(record({
        "pairs": COUNT, "families": described(by_name(COUNT), "pairs by both families, as continue | punch"),
        "preemptions": COUNT, "start": array(TEXT), "a": TEXT, "b": TEXT, "steps": array({"type": "object"})})),
}), "by choice of locks; broken by name, each with its schedule")
MAPPING = record({
    "process": TEXT, "mapping": TEXT, "rss": COUNT, "pss": NUMBER, "levels": LEVELS, "exclusive": RUNS,
    "truth": record({"pss": NUMBER, "shared": COUNT}),
}, {key: COUNT for key in ("shared_hugetlb", "private_hugetlb", "shared", "private")})
OBSERVATION = record({"index": COUNT, "folios": array(FOLIO), "mappings": array(MAPPING),
                      "processes": array(record({"process": TEXT, "page_tables": LEVELS})),
                      "freed_while_mapped": COUNT})
TRACE = {"name": TEXT, "operations": COUNT, "by_operation": by_name(COUNT), "geometry": TEXT,
         "files": array(record({"name": TEXT, "page_size": described(COUNT, "bytes"), "pages": COUNT,
                                "kind": {"enum": ["hugetlb", "shmem", "anon"]}})),
         "processes": array(TEXT), "mappings": COUNT, "threads": COUNT, "provenance": by_name(TEXT)}
REPORT = record({"format": TEXT, "name": TEXT, "lines": COUNT, "used": by_name(COUNT),
                 "skipped": array(record({"reason": TEXT, "count": COUNT, "first_line": COUNT})), "notes": array(TEXT)})
ENTRY = maybe(record({"kind": {"enum": ["table", "leaf", "migration", "poison", "zero"]}, "frame": COUNT,
                      "flags": array(TEXT)}, {"folio": maybe(TEXT), "page": COUNT}))
CHANGE = record({"kind": {"enum": ["folio", "mapping", "process", "machine"]}, "name": TEXT, "key": TEXT, "before": {},
                 "after": {}})
STEP = record({
    "scheme": TEXT, "index": COUNT, "line": maybe(COUNT), "statement": TEXT, "error": ERROR, "event": maybe(TEXT),
    "done": DONE, "cost": record({key: COUNT for key in ("ref", "map", "transient", "scanned", "leaves")}),
    "entries": array(record({"process": TEXT, "mapping": maybe(TEXT), "offset": COUNT, "level": TEXT, "entries": COUNT,
                             "before": ENTRY, "after": ENTRY})),
    "words": array(record({"folio": maybe(TEXT), "page": COUNT, "pages": COUNT, "word": TEXT, "before": {},
                           "after": {}})),
    "answers": array(CHANGE), "truth": array(CHANGE), "wrong": by_name(NUMBER)})
VALUES = by_name(record({"compared": COUNT, "not_zero": COUNT, "equal": COUNT}))
OUT_OF_SCOPE = array(record({"step": COUNT, "op": TEXT, "reason": TEXT}))

def grows(fields, optional=None):
    """A record to which later versions may add fields."""
    return {**record(fields, optional), "additionalProperties": True}


PHASE = grows({"operations": COUNT, "leaves": COUNT, "atomics": ATOMICS,
               "scanned": grows({"p50": COUNT, "p99": COUNT, "max": COUNT})})
INTERVAL = described(record({"median": NUMBER, "low": NUMBER, "high": NUMBER, "runs": array(NUMBER)}),
                     "ns, with a 95 % confidence interval and each run")
ERRORS = by_name(grows({"observations": COUNT, "worst": NUMBER, "last": NUMBER}))
COUNTED = {"options": OPTIONS, "cost": record(COST), "phases": by_name(PHASE), "refused": by_name(COUNT),
           "less_done": record({"operations": COUNT, "bytes": COUNT}, {"by_operation": by_name(record(
               {"operations": COUNT, "bytes": COUNT}))}),
           "maps_of": described(by_name(COUNT), "the mapping of a page in base pages that overflows a count"),
           "memory": grows({"struct_pages": COUNT, "struct_pages_hvo": maybe(COUNT), "tables_peak": COUNT,
                            "scheme": COUNT, "host_committed": COUNT}),
           "errors": record({"own": ERRORS, "per_page": ERRORS, "consequences": ERRORS})}
VALUE = record({"value": NUMBER, "low": NUMBER, "high": NUMBER})
MODELLED_PART = {"accounting": described(VALUE, "ns an operation, 90 % interval"), "leans_on": TEXT}
MODELLED_MORE = {"ns_per_leaf": VALUE, "total": described(VALUE, "ns an operation, with the kernel's own work"),
                 "share": described(VALUE, "accounting in per cent of the total"), "total_leans_on": TEXT,
                 "no_total": described(by_name(COUNT), "operations that no profile prices")}
MODELLED = {"modelled": grows({**MODELLED_PART, "phases": by_name(record(MODELLED_PART, MODELLED_MORE)),
                               "processors": by_name({"type": "object"}), "events": by_name(COUNT), "cpus": COUNT,
                               "hottest": array({"type": "object"})}, MODELLED_MORE)}
PROFILE = record({
    "kind": {"enum": ["kernel", "accounting"]}, "description": TEXT, "processor": {"type": "object"},
    "costs": by_name(record({"value": NUMBER, "low": NUMBER, "high": NUMBER, "unit": {"const": "ns"}, "how": TEXT,
                             "from": TEXT})),
    "contention": maybe({"type": "object"}), "warnings": array(TEXT), "not_measurable": by_name(TEXT),
    "replay_gate": TEXT})
MEASURED = {"measured": grows({"ns_per_operation": INTERVAL, "phases": by_name(INTERVAL)})}
REFUSED = grows({"promises": array(TEXT),
                 "refused_why": described(TEXT, "why the scheme cannot live with the options")})
COMPARED = {"anyOf": [REFUSED, grows({"promises": array(TEXT), **COUNTED}, {**MEASURED, **MODELLED})]}
COMPARE = grows({
    "format": {"const": "hgmcore-compare 2"},
    "trace": grows({**TRACE, "phases": array(grows({"name": TEXT, "first": COUNT, "operations": COUNT}))}),
    "options": OPTIONS, "differing_options": by_name(by_name(array(TEXT))),
    "baseline": TEXT, "profile": maybe(TEXT), "machine": maybe({"type": "object"}),
    "verdict": grows({"answers": array(TEXT), "front": array(TEXT),
                      "beaten": by_name(record({"by": TEXT, "on": array(TEXT)})),
                      "details": by_name(TEXT), "untested": array(TEXT), "warnings": array(TEXT)}),
    "schemes": by_name(COMPARED)})

PROMISE = {"enum": ["promised", "definition", "fault"]}
SEARCH = record({
    "options": {"type": "object"}, "closed": BOOL,
    "ended": {"enum": ["closed", "depth", "states", "seconds", "memory", "interrupt"]},
    "depth": COUNT, "complete_depth": described(INTEGER, "the last of which every state was expanded, or -1"),
    "states": COUNT, "by_depth": array(COUNT), "generated": COUNT, "fatal_steps": COUNT,
    "executed": by_name(record({"done": COUNT, "refused": COUNT, "injected": COUNT})),
    "symmetry": {"enum": ["none", "processes", "pages"]}, "orbit_sum": COUNT, "bytes_per_state": NUMBER,
    "seconds": NUMBER,
    "properties": by_name(record({
        "verdict": {"enum": ["proved", "bounded", "violated", "vacuous", "unknown"]}, "promise": PROMISE,
        "asked": described(BOOL, "can the premise hold in the scope"),
        "premise": described(COUNT, "states or steps in which it held"),
    }, {"length": COUNT, "trace": TEXT, "x86_64": maybe(TEXT),
        "live": described(TEXT, "JSON lines for hgmcore validate --live --sequence"),
        "not_live": described(TEXT, "why there are none"), "sides": array(TEXT), "steps": array(record({
        "statement": array(TEXT), "error": ERROR, "event": maybe(TEXT), "done": maybe(COUNT),
        "changed": described(by_name({"type": "array", "minItems": 2, "maxItems": 2}), "word: [before, after]")}))})),
})

FORMATS = {
    "hgmcore-compare 2": ("hgmcore compare --json", COMPARE),
    "hgmcore-replay 1": ("hgmcore replay --json", named("hgmcore-replay 1", {
        "scheme": TEXT, "options": OPTIONS, "geometry": TEXT, "threads": COUNT, "stretches": COUNT,
        "operations_at_once": COUNT,
        "operations": array(record({"index": COUNT, "op": OPERATION_NAME, "error": ERROR, "done": DONE},
                                   {"event": {"enum": ["minor", "never_fired"]}})),
        "cost": record({**COST, "ns_per_operation": NUMBER}),
        "counters": record({"underflows": COUNT, "overflows": COUNT}), "observations": array(OBSERVATION)})),
    "hgmcore-info 1": ("hgmcore info --json", named("hgmcore-info 1", TRACE)),
    "hgmcore-convert 1": ("hgmcore convert --json", named("hgmcore-convert 1", {"output": TEXT, **TRACE})),
    "hgmcore-import 1": ("hgmcore import FORMAT --json", named("hgmcore-import 1", {
        "output": TEXT, "report": REPORT, **TRACE})),
    "hgmcore-schemes 1": ("hgmcore schemes --json", named("hgmcore-schemes 1", {
        "schemes": by_name(record({"explanation": TEXT, "state": array(TEXT), "defaults": OPTIONS, "posted": OPTIONS,
                                   "hvo": BOOL}))})),
    "hgmcore-profiles 1": ("hgmcore profiles --json", named("hgmcore-profiles 1", {"profiles": by_name(PROFILE)})),
    "hgmcore-calibrate 1": ("hgmcore calibrate --json", named("hgmcore-calibrate 1", {
        "seconds": NUMBER, "cpus": array(COUNT), "not_measurable": by_name(TEXT), "replay_gate": TEXT,
        "measured": by_name(record({"median": NUMBER, "low": NUMBER, "high": NUMBER})),
        "replays": array(record({"scheme": TEXT, "action": TEXT, "atomics": NUMBER, "ns": NUMBER})),
        "profile": PROFILE})),
    "hgmcore-costs 1": ("hgmcore schemes --costs --json", named("hgmcore-costs 1", {
        "page_size": TEXT, "costs": {"type": "object"}})),
    "hgmcore-workloads 1": ("hgmcore workloads --json", named("hgmcore-workloads 1", {
        "workloads": by_name(record({"question": TEXT, "explanation": TEXT, "parameters": {"type": "object"}}))})),
    "hgmcore-step 1": ("hgmcore step --json, the first line", named("hgmcore-step 1", {
        "trace": TEXT, "geometry": TEXT, "schemes": array(TEXT), "options": OPTIONS, "from": COUNT, "to": COUNT})),
    "hgmcore-step 1, lines": ("hgmcore step --json, each further line: an operation under a scheme", STEP),
    "hgmcore-sweep 1": ("hgmcore sweep --json", named("hgmcore-sweep 1", {
        "spec": TEXT, "table": described(TEXT, "the Parquet file"), "rows": described(COUNT, "of the table"),
        "points": COUNT, "schemes": COUNT, "tasks": described(COUNT, "comparisons: points that differ in what matters"),
        "ran": described(COUNT, "comparisons that had not been done"),
        "failed": array(record({"task": TEXT, "point": TEXT, "error": TEXT})), "seconds": NUMBER})),
    "hgmcore-sweep 1, lines": ("hgmcore sweep, a line of results.jsonl: what a comparison found, or why it failed", {
        "oneOf": [record({"format": {"const": "hgmcore-sweep 1, lines"}, "task": TEXT, **rest}) for rest in (
            {"error": TEXT}, {"numbers": described(array({"type": "array", "minItems": 10, "maxItems": 10}),
                                                   "rows of the long form: scheme, phase, group, key, value, low, "
                                                   "high, unit, label, note")})]}),
    "hgmcore-explain 1": ("hgmcore explain --json", named("hgmcore-explain 1", {
        "input": TEXT, "operations_before": COUNT, "scheme": TEXT, "options": OPTIONS, "properties": array(TEXT),
        "tested": BOOL,
        "error": maybe(record({"property": TEXT, "meaning": TEXT, "kind": {"enum": list(KINDS)}, "index": COUNT,
                               "value": NUMBER, "value_in_part": NUMBER})),
        "trace": maybe(TEXT), "operations": COUNT, "shortest": BOOL})),
    "hgmcore-check 1": ("hgmcore check --json", named("hgmcore-check 1", {
        "interrupted": BOOL,
        "out_of_memory": described(array(array(TEXT)), "[scope, scheme] of searches that memory ended"),
        "scopes": by_name(record({"definition": TEXT, "schemes": by_name(SEARCH)}))})),
    "hgmcore-walk 1": ("hgmcore check --walk --json", named("hgmcore-walk 1", {
        "seed": COUNT, "options": OPTIONS, "out_of_memory": BOOL, "schemes": by_name(record({
            "sequences": COUNT, "steps": COUNT, "properties": by_name(record({
                "promise": PROMISE, "ground": TEXT, "number": COUNT, "length": COUNT, "trace": TEXT},
                {"live": TEXT, "not_live": TEXT}))}))})),
    "hgmcore-races 1": ("hgmcore check --races --json", named("hgmcore-races 1", {
        "interrupted": BOOL, "out_of_memory": described(array(array(TEXT)), "[scope, scheme] that memory ended"),
        "scopes": by_name(record({"definition": TEXT, "schemes": by_name(by_name(RACES))}))})),
    "hgmcore-schedule 1": ("hgmcore replay --schedule --json", named("hgmcore-schedule 1", {
        "scheme": TEXT, "scope": TEXT, "locks": TEXT, "start": array(TEXT), "a": TEXT, "b": TEXT,
        "steps": array({"type": "object"}), "broken": array(TEXT)})),
    "hgmcore-validate 1": ("hgmcore validate --json", {"type": "object", "required": ["format"], "properties": {
        "format": {"const": "hgmcore-validate 1"}, "values": VALUES, "recordings": array(record({
            "recording": TEXT, "kernel": TEXT, "doc": TEXT, "scheme": TEXT, "steps": COUNT, "observations": COUNT,
            "equal": COUNT, "out_of_scope": OUT_OF_SCOPE, "not_compared": by_name(COUNT), "values": VALUES,
            "differences": array(TEXT)}))}}),
    "hgmcore-validate-published 1": ("hgmcore validate --published --json", named("hgmcore-validate-published 1", {
        "ok": BOOL, "tables": array(grows({"name": TEXT, "title": TEXT, "kind": TEXT, "from": TEXT,
                                           "processor": TEXT, "profile": maybe(TEXT),
                                           "rows": array(grows({"cell": TEXT, "miss": BOOL}))})),
        "sets": by_name({"type": "object"}), "better_than_both_baselines": by_name(BOOL),
        "baselines": by_name(array(NUMBER)), "noise_band": NUMBER, "ablation": array({"type": "object"}),
        "not_expressed": array(by_name(TEXT))})),
    "hgmcore-validate-published-fit 1": ("hgmcore validate --published --fit --json", named(
        "hgmcore-validate-published-fit 1", {"costs": by_name(VALUE)})),
    "hgmcore-validate-live 1": ("hgmcore validate --live --json", named("hgmcore-validate-live 1", {
        "kernel": TEXT, "seed": COUNT, "hugetlb": BOOL, "sequences": COUNT, "steps": COUNT, "disturbed": COUNT,
        "not_repeated": array(COUNT), "not_repeated_differences": array(record({
            "seed": COUNT, "differences": array(TEXT), "trace": TEXT})),
        "out_of_scope": by_name(COUNT), "values": VALUES,
        "times": maybe({"type": "object"}),
        "difference": maybe(record({"seed": COUNT, "scheme": TEXT, "differences": array(TEXT), "trace": TEXT,
                                    "recording": array({"type": "object"})}))},
        {"sequence": described(TEXT, "of --sequence: its file"),
         "shown": described(array(TEXT), "of --sequence: each step, with the kernel's answer and map counts")})),
}
"""name -> (what writes it, its schema)."""


def schemas() -> dict:
    """{name of a format: its schema, with $schema, title and what writes it}."""
    return {name: {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": name,
                   "description": f"written by {written}", **schema} for name, (written, schema) in FORMATS.items()}
