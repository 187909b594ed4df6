"""What a trace is, in all its forms: records and header in memory, text, Parquet; how one is checked and written."""

from hgmcore.trace.header import NO_TIME, Header, TraceError
from hgmcore.trace.names import File, Mapping
from hgmcore.trace.statements import OPERATION
from hgmcore.trace.trace import Trace

__all__ = ["NO_TIME", "OPERATION", "File", "Header", "Mapping", "Trace", "TraceError"]
