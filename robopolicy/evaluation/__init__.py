"""Rollouts over seeds, statistics, reports."""
