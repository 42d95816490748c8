"""Judging demonstrations by what a base policy, or the other demonstrations, would have done."""
