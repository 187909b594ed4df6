"""Profiles: those that ship, and every way in which a file can be wrong."""

import pytest

from hgmcore.model import contention, profile
from hgmcore.model.profile import ProfileError

GOOD = """format = "hgmcore-profile 1"
name = "mine"
kind = "kernel"
processor = { cpus = 2, l2_bytes = 1048576 }

[cost]
atomic = { ns = 5.0, low = 4.5, high = 5.5, how = "measured", from = "here" }
plain = { ns = 0.1, low = 0.0, high = 0.3, how = "measured", from = "here" }

[cost.moved.l3]
blind = { ns = 10, low = 9, high = 12, how = "measured", from = "here" }

[kernel]
continue = { call = 9, call_low = 8, call_high = 10, leaf = 2, leaf_low = 1, leaf_high = 3, how = "cited", from = "x" }
"""


def test_what_ships():
    assert profile.names() == ["altra", "epyc-7313", "epyc-milan-vm", "turin-vm", "xeon-4210r", "xeon-8176"]
    for name in profile.names():
        one = profile.load(name)
        assert one.name == name and one.description
        assert all(value.source for value in one.costs.values())
        assert (one.kind == "kernel") == any(key.startswith("kernel.") for key in one.costs)
    assert profile.load("epyc-7313").form == profile.load("xeon-8176").form == 2
    assert profile.load("turin-vm").form == profile.load("xeon-4210r").form == 1


def test_a_good_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    one = profile.load(path)
    assert one.costs["moved.l3.blind"].ns == 10
    assert one.costs["kernel.continue.leaf"].high == 3
    assert set(one.costs) <= set(profile.parameters())


@pytest.mark.parametrize("old, new, message", [
    ('hgmcore-profile 1', 'hgmcore-profile 9', r":1: format: 'hgmcore-profile 9' is not 'hgmcore-profile 1'"),
    ('name = "mine"\n', 'name = "mine"\ncolour = 3\n', r":3: colour: no such key"),
    ('atomic = {', 'atomc = {', r":7: cost.atomc: no such key; did you mean 'atomic'\?"),
    ('ns = 5.0', 'ns = 9.0', r":7: cost.atomic: ns 9 is not between low 4.5 and high 5.5"),
    ('low = 4.5, high = 5.5', 'low = 5.5, high = 4.5', r":7: cost.atomic: low 5.5 is above high 4.5"),
    ('low = 0.0', 'low = -1.0', r":8: cost.plain.low: -1.0 is below 0"),
    ('ns = 5.0', 'ns = "5"', r":7: cost.atomic.ns: '5' is no number"),
    ('ns = 5.0', 'ns = true', r":7: cost.atomic.ns: True is no number"),
    ('ns = 5.0', 'ns = nan', r":7: cost.atomic.ns: nan is no number"),
    (', how = "measured", from = "here" }\nplain', ', from = "here" }\nplain', r":7: cost.atomic.how: is missing"),
    ('how = "cited"', 'how = "guessed"', r":14: kernel.continue.how: 'guessed' is not one of measured, cited, "),
    ('call_low = 8, ', '', r":14: kernel.continue.call_low: is missing"),
    ('continue =', 'contniue =', r":14: kernel.contniue: no such key; did you mean 'continue'\?"),
    ('[cost.moved.l3]', '[cost.moved.l4]', r":10: cost.moved.l4: no such key"),
    ('l2_bytes = 1048576', 'l2_bytes = 0', r":4: processor.l2_bytes: 0 is below 1"),
    (', l2_bytes = 1048576', '', r":4: processor.l2_bytes: is missing"),
    ('kind = "kernel"', 'kind = "accounting"', r":3: kind: 'accounting', but there is a \[kernel\]"),
    ('kind = "kernel"', 'kind = "both"', r":3: kind: 'both' is not one of kernel, accounting"),
    ('[cost]', '[cost', r"Expected"),
])
def test_what_is_wrong_is_said_in_one_line(tmp_path, old, new, message):
    assert old in GOOD
    path = tmp_path / "mine.toml"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(ProfileError, match=message) as error:
        profile.load(path)
    assert str(error.value).startswith(f"{path}:") and "\n" not in str(error.value)


def test_a_profile_that_is_not_there(tmp_path):
    with pytest.raises(ProfileError, match=r"no profile 'turin'; did you mean 'turin-vm'\? \(known: altra,"):
        profile.load("turin")
    with pytest.raises(ProfileError, match="none.toml: No such file"):
        profile.load(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ProfileError, match="binary.toml: is not UTF-8"):
        profile.load(tmp_path / "binary.toml")


@pytest.mark.parametrize("name, h, g, q, error", [
    ("epyc-milan-vm", 0, 7.4295, 0.02996, 0.106), ("xeon-8176", 37.712, 21.9171, 0, 0.036),
    ("turin-vm", 0, 10.65, 0, 0),
])
def test_curves_are_those_that_their_points_fit(name, h, g, q, error):
    shipped = profile.load(name).curve
    found = contention.fit(shipped.points)
    assert (found.h, found.g, found.q) == (pytest.approx(h, abs=1e-3), pytest.approx(g, abs=1e-3),
                                           pytest.approx(q, abs=1e-5))
    assert found.error == pytest.approx(error, abs=1e-3)
    for n in (1, 2, 8, 32):
        if n <= 4 * shipped.valid_to:
            assert shipped.update(n) == pytest.approx(found.update(n), rel=2e-3)


def test_a_curve_is_refused_far_out():
    curve = profile.load("turin-vm").curve
    assert curve.share(8) == pytest.approx((4.95 + 10.65 * 7) / 8)
    with pytest.raises(ValueError, match="has points up to 2 CPUs: 9 is too far out"):
        curve.update(9)
