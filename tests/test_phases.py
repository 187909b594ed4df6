"""A trace cut into phases, declared and by kind."""

import numpy as np

from hgmcore import Trace
from hgmcore.trace.phases import phases

HEAD = "hgmcore-trace 1\nfile F 2M 4\npopulate F 0 4\nmmap A v F 0 8M shared minor\nsplit A v 0 8M\n"


def cut(body):
    found = phases(Trace.parse(HEAD + body))
    return [found.names[number] for number in found.number.tolist()][4:], found


def test_by_kind():
    names, found = cut("continue A v 0 4K\nobserve\ntouch A v 0\nfork A B\ndontneed B v 0 4K\nmunmap B v 4K 2M\n"
                       "dontneed A v 1M 3M\nexit B\ncollapse A v 0 2M\nmigrate A v 0 2M\npunch F 0 2M\ntruncate F 0\n"
                       "hwpoison A v 0\nfail 1\ncontinue A v 0 4K\nobserve\npin F 0\nmremap A v 2M 2M w\n"
                       "dontneed A w 0 2M\ndontneed A w 4K 2044K\n")
    assert names == ["install", "install", "access", "fork", "partial_unmap", "partial_unmap", "zap", "zap", "collapse",
                     "migrate", "truncate", "truncate", "failures", "failures", "failures", "failures", "setup",
                     "setup", "zap", "partial_unmap"]
    assert not found.declared and found.number.dtype == np.uint32


def test_declared():
    names, found = cut("observe\nphase a\ncontinue A v 0 4K\nphase b\nobserve\nphase a\nobserve\n")
    assert names == ["setup", "a", "a", "b", "b", "a", "a"]
    assert found.declared and found.names == ("a", "b", "setup")


def test_setup_may_be_declared_and_phases_without_operations_have_no_name():
    trace = Trace.parse("hgmcore-trace 1\nphase setup\nfile F 2M 1\n")
    assert phases(trace).names == ("setup",) and not phases(trace).number.any()
    assert phases(Trace.parse("hgmcore-trace 1\n")).names == ()
