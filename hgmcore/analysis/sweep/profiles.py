"""Profiles as a sweep needs them; without modelled times, one error says so."""

from __future__ import annotations

try:
    from hgmcore.analysis.modelled import check_placed, profile_of
    from hgmcore.model.profile import to_toml
except ImportError:
    def profile_of(profile, assume=None):
        raise ValueError(f"'{profile}': this hgmcore models no times")

    def check_placed(cpus, spread):
        """Nothing to check."""

    def to_toml(profile):
        raise ValueError("this hgmcore models no times")

__all__ = ["check_placed", "profile_of", "to_toml"]
